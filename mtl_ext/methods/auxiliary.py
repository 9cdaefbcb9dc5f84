"""Methods with a primary task, which the others are there to help: the auxiliary tasks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_num_tasks, check_range, chosen_tasks, task_indices
from mtl_ext.methods.grad_method import GramMethod


class AuxiliaryMethod(GramMethod):
    """A method of the Gram matrix that tells primary from auxiliary tasks.

    Args:
        num_tasks: K.
        primary: name or index of the primary task, or several. Norms and products with several are those of their
            summed gradient.
        reduction: see `Method`.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        keys: names or indices of the last step's losses, in order.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | Sequence[str | int] = 0,
        reduction: str | None = None,
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        self.num_tasks = num_tasks
        self.primary = chosen_tasks("primary", primary, num_tasks)
        self.keys: list[str | int] = list(range(num_tasks))

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        self.keys = gradients.losses.keys
        return super()._combine(gradients, gram, losses, usable)

    def primary_tasks(self, gram: Tensor) -> Tensor:
        """[K] float64: 1 for a primary task, 0 for an auxiliary one.

        Raises:
            ValueError: another number of tasks than ``num_tasks``, or `primary` names no loss.
        """
        check_num_tasks(len(gram), self.num_tasks)
        chosen = task_indices("primary", self.primary, self.keys)
        return gram.new_tensor([float(k in chosen) for k in range(self.num_tasks)])


def primary_norm(gram: Tensor, primary: Tensor) -> Tensor:
    """Norm of the primary tasks' summed gradient, a scalar.

    Args:
        gram: [K, K] float64.
        primary: [K] float64, 1 for a primary task and 0 for others.
    """
    return (primary @ gram @ primary).clamp(min=0.0).sqrt()


def primary_cosines(gram: Tensor, primary: Tensor) -> Tensor:
    """Cosines [K] of the tasks' gradients and the primary tasks' summed gradient; 0 where either is 0.

    Args:
        gram: [K, K] float64.
        primary: [K] float64, 1 for a primary task and 0 for others.
    """
    lengths = gram.diagonal().sqrt() * primary_norm(gram, primary)
    return torch.where(lengths > 0, gram @ primary / lengths, 0.0).clamp(-1.0, 1.0)
