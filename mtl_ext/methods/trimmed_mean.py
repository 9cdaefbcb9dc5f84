"""The trimmed mean of the gradients."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GradMethod

# Entries of each task that are sorted at a time: K rows of them stay in the second-level cache.
IN_CACHE = 16384


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
        """One parameter at a time."""
        num_tasks, num_params = len(gram), len(gradients.targets)
        least = 2 * self.trim_number + 1
        if num_tasks < least:
            found = f"trim_number = {self.trim_number}"
            raise ValueError(f"losses has {num_tasks} tasks, expected at least {least} for {found}")
        weights = gram.new_full((num_tasks,), 1 / num_tasks)
        if self.trim_number == 0:
            return ops.combine(gradients.tensors, weights), weights
        columns = [gradients.tensors[param::num_params] for param in range(num_params)]
        return [self._trimmed(column) for column in columns], weights

    def _trimmed(self, column: list[Tensor]) -> Tensor:
        """The trimmed mean of one parameter's K gradients; empty where all are."""
        present = next((grad for grad in column if grad.numel() > 0), None)
        if present is None:
            return column[0]
        rows = [(grad if grad.numel() > 0 else torch.zeros_like(present)).reshape(-1) for grad in column]
        out = torch.empty_like(rows[0])
        block = IN_CACHE if out.is_cpu else out.numel()
        for start in range(0, out.numel(), block):
            out[start : start + block] = self._trimmed_block([row[start : start + block] for row in rows])
        return out.reshape(present.shape)

    def _trimmed_block(self, rows: list[Tensor]) -> Tensor:
        """Moves the largest values to the last rows and the smallest to the first, by exchanges of neighbours.

        Unlike the sum of all less the extremes, that does not cancel; unlike a sort, it vectorises, and stops early.
        """
        trim = self.trim_number
        rows = [row.clone() for row in rows]
        spare = torch.empty_like(rows[0])
        for done in range(trim):
            upwards = range(done, len(rows) - 1 - done)
            for k in (*upwards, *reversed(upwards[:-1])):
                torch.minimum(rows[k], rows[k + 1], out=spare)
                torch.maximum(rows[k], rows[k + 1], out=rows[k + 1])
                rows[k], spare = spare, rows[k]
        kept = rows[trim : len(rows) - trim]
        wide = torch.float64 if spare.dtype == torch.float64 else torch.float32
        total = kept[0].to(wide, copy=True)
        for row in kept[1:]:
            total += row
        return total.div_(len(kept))
