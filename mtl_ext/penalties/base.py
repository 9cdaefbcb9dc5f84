"""What a penalty is, and how its gradients join those of the tasks."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mtl_ext.losses import TaskLosses


class Penalty(Protocol):
    """A term that depends on the features and belongs to a task: it joins that task's gradient.

    Pass instances as ``method.backward(..., penalties=[...])``. The term is multiplied by the task's weight like the
    loss itself; what a method learns from the losses' values does not see it.
    """

    def cotangents(self, keys: Sequence[str | int], features: Sequence[Tensor]) -> Sequence[Sequence[Tensor | None]]:
        """The gradients of the K terms with respect to the P features.

        Args:
            keys: the tasks' names, or indices where the losses have no names.
            features: P tensors; not to be changed.

        Returns:
            K rows of P gradients of the features' shapes; None for 0.
        """
        ...


def penalty_cotangents(
    penalties: Sequence[Penalty], losses: TaskLosses, features: Sequence[Tensor]
) -> list[list[Tensor | None]]:
    """The sum of all penalties' gradients, with the scale of the losses' gradients: K rows of P, None for 0.

    Raises:
        ValueError: a penalty gives another number of rows or columns, or there are no features to act on.
    """
    total: list[list[Tensor | None]] = [[None] * len(features) for _ in range(len(losses))]
    if penalties and not features:
        raise ValueError("penalties act on features: pass features=<what the heads read> as well")
    for penalty in penalties:
        rows = penalty.cotangents(losses.keys, features)
        if len(rows) != len(losses) or any(len(row) != len(features) for row in rows):
            name, found = type(penalty).__name__, [len(row) for row in rows]
            expected = f"{len(losses)} rows of {len(features)}"
            raise ValueError(f"{name}.cotangents gave rows of lengths {found}, expected {expected}")
        for k, row in enumerate(rows):
            for p, grad in enumerate(row):
                if grad is not None:
                    total[k][p] = add(total[k][p], grad if losses.scale is None else grad * losses.scale.to(grad.dtype))
    return total


def add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum, None being 0."""
    return b if a is None else a if b is None else a + b
