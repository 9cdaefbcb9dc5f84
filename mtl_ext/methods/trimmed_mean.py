"""The trimmed mean of the gradients."""

import torch
from torch import Tensor

from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GradMethod


class TrimmedMean(GradMethod):
    """Coordinate-wise trimmed mean (Yin et al. 2018, Definition 2): in each entry, the mean without its extremes.

    Of the K values of each entry, the ``trim_number`` largest and as many smallest are left out. An absent gradient
    counts as 0. TorchJD has no default for ``trim_number``. The returned weights are equal, since each entry has its
    own.

    Args:
        trim_number: how many values to leave out on each side; K must be at least ``2 trim_number + 1``. With 0 it is
            the mean.
        reduction: ``"mean"`` as in the paper; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        trim_number: int = 0,
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("trim_number", trim_number, 0)
        self.trim_number = trim_number

    def combination(self, gradients: TaskGradients, gram: Tensor, losses: Tensor) -> tuple[list[Tensor], Tensor]:
        """Sorts one parameter's values at a time."""
        num_tasks, num_params = len(gram), len(gradients.targets)
        least = 2 * self.trim_number + 1
        if num_tasks < least:
            found = f"trim_number = {self.trim_number}"
            raise ValueError(f"losses has {num_tasks} tasks, expected at least {least} for {found}")
        columns = [gradients.tensors[param::num_params] for param in range(num_params)]
        return [self._trimmed(column) for column in columns], gram.new_full((num_tasks,), 1 / num_tasks)

    def _trimmed(self, column: list[Tensor]) -> Tensor:
        """The trimmed mean of one parameter's K gradients; empty where all are."""
        present = next((grad for grad in column if grad.numel() > 0), None)
        if present is None:
            return column[0]
        rows = torch.stack([grad if grad.numel() > 0 else torch.zeros_like(present) for grad in column])
        kept = rows.sort(0).values[self.trim_number : len(rows) - self.trim_number]
        wide = torch.float64 if present.dtype == torch.float64 else torch.float32
        return kept.mean(0, dtype=wide).to(present.dtype)
