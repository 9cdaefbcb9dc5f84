"""Penalty-based boundary intersection."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range, task_values
from mtl_ext.methods.loss_method import LossMethod


class PBI(LossMethod):
    """Penalty-based boundary intersection (Zhang & Li 2007): distance along a ray plus theta times that from it.

    ``d1 + theta sqrt(|L' - d1 r|^2 + 1e-12)`` with ``L' = L - reference``, r the normalised preference and
    ``d1 = L' r``. The 1e-12, as in TorchJD, keeps the gradient finite on the ray. A weight is below 0 where the penalty
    outweighs the rest: a loss that is small for the preference is let grow. There is no ``reduction``: a distance is
    neither a sum nor a mean over the tasks.

    Args:
        num_tasks: K.
        preference: K numbers, at least 0, not all 0; equal by default.
        theta: of the penalty. The paper, which does not descend along gradients, has 5; that lets small losses grow
            until all are as the preference wants, so 1 here (TorchJD has no default).
        reference: K numbers, the ideal losses; 0 by default.
        nonfinite: see `Method`.

    Attributes:
        preference: [K] float64, as given; may be written between calls.
    """

    preference: Tensor
    reference: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        preference: Sequence[float] | Tensor | None = None,
        theta: float = 1.0,
        reference: Sequence[float] | Tensor | None = None,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, nonfinite=nonfinite)
        check_range("theta", theta, 0.0)
        self.theta = theta
        ray = task_values("preference", [1.0] * num_tasks if preference is None else preference, num_tasks, low=0.0)
        if not ray.any():
            raise ValueError("preference is all 0, expected a direction")
        self.register_buffer("preference", ray)
        reference = [0.0] * num_tasks if reference is None else reference
        self.register_buffer("reference", task_values("reference", reference, num_tasks))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The distance along the ray and the penalty."""
        ray: Tensor = self.preference / self.preference.norm()
        gaps = losses - self.reference
        along = gaps @ ray
        aside = gaps - along * ray
        return along + torch.sqrt(aside @ aside + 1e-12) * self.theta
