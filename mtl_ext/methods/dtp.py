"""Dynamic task prioritisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range, task_values
from mtl_ext.methods.loss_method import LossMethod


class DTP(LossMethod):
    """Dynamic task prioritisation (Guo et al. 2018): focal weights ``-(1 - kappa_k)^gamma log kappa_k``.

    kappa_k in (0, 1] measures how well task k does, 1 being perfect (accuracy, IoU, ...), so that difficult tasks weigh
    more. The loop hands it over by `update_performance`, from data that is not tested on; until then, and in a loop
    that never does, all weights are 1. No peer has it.

    Args:
        num_tasks: K.
        gamma: focusing; the larger, the less an easy task weighs.
        momentum: share of the earlier kappa in the new one (the paper's 1 - alpha); 0 forgets it.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        performance: kappa, [K] float64, NaN at first.
    """

    wants_performance = True
    performance: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        gamma: float = 2.0,
        momentum: float = 0.0,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("gamma", gamma, 0.0)
        check_range("momentum", momentum, 0.0, 1.0)
        self.gamma = gamma
        self.momentum = momentum
        self.register_buffer("performance", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        known = self.performance.isfinite()
        focal = -((1 - self.performance) ** self.gamma) * self.performance.log()
        return torch.where(known, focal, 1.0) @ losses

    def update_performance(self, values: Sequence[float] | Tensor) -> None:
        """Takes the tasks' performances.

        Args:
            values: K numbers in (0, 1].

        Raises:
            ValueError: another number of values, or one outside (0, 1].
        """
        new = task_values("values", values, len(self.performance))
        for k, value in enumerate(new.tolist()):
            check_range(f"values[{k}]", value, 0.0, 1.0, open_low=True)
        new = new.to(self.performance.device)
        mixed = self.momentum * self.performance + (1 - self.momentum) * new
        self.performance.copy_(torch.where(self.performance.isfinite(), mixed, new))
