"""What a penalty is, and how its gradients join those of the tasks."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from mtl_ext.losses import TaskLosses

Cotangent = tuple[Tensor, Tensor]
"""A tensor of a task's graph, and a gradient that the task's backward pass adds there."""


class Penalty(Protocol):
    """A term that depends on what a task's head reads and belongs to that task: it joins the task's gradient.

    Pass instances, made for the batch, as ``method.backward(..., penalties=[...])``. The term is multiplied by the
    task's weight like the loss itself; what a method learns from the losses' values does not see it. It costs no pass
    of its own through the trunk, for the task's backward pass begins at its tensors, too.
    """

    def cotangents(self, losses: TaskLosses) -> Sequence[Sequence[Cotangent]]:
        """Where the K terms meet the graph of the losses, and their gradients there.

        Args:
            losses: the step's losses: ``losses.keys`` are the tasks' names, or indices where the losses have none;
                ``losses.scale`` is what all gradients are multiplied by, None for 1.

        Returns:
            K rows of pairs: a tensor with a graph (the features, or what a task's own layers have made of them), and
            the gradient of the task's term with respect to it, of its shape and with the losses' scale. The row of a
            task without a term is empty.
        """
        ...


def penalty_cotangents(penalties: Sequence[Penalty], losses: TaskLosses) -> list[list[Cotangent]]:
    """The gradients of all penalties, K rows.

    Raises:
        ValueError: a penalty gives another number of rows, a tensor without a graph, or a gradient of another shape.
    """
    total: list[list[Cotangent]] = [[] for _ in range(len(losses))]
    for penalty in penalties:
        name, rows = f"{type(penalty).__name__}.cotangents", penalty.cotangents(losses)
        if len(rows) != len(losses):
            raise ValueError(f"{name} gave {len(rows)} rows, expected {len(losses)}: one per task")
        for task, row, into in zip(losses.names, rows, total, strict=True):
            for tensor, grad in row:
                if not tensor.requires_grad:
                    raise ValueError(f"{name} gave for {task} a tensor that does not require grad")
                if grad.shape != tensor.shape:
                    found, expected = list(grad.shape), list(tensor.shape)
                    raise ValueError(f"{name} gave for {task} a gradient of shape {found}, expected {expected}")
                into.append((tensor, grad))
    return total
