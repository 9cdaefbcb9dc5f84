"""Trainable weights of tasks and of each task's objectives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_ext.methods.loss_method import LossMethod


class TaskObjectiveWeights(LossMethod):
    """Trainable weights for tasks and, inside a task, for its objectives such as Dice and IoU (Miraliev et al. 2024).

    Only a description of the paper is at hand, and no peer has it: the loss weights of tasks and objectives are trained
    together. The formula here is our reading of it, uncertainty weighting on both levels:
    ``sum_o L_o / (2 exp(u_o + s_t(o))) + (u_o + s_t(o)) / 2``, o the objectives, t(o) the task of each. Both logarithms
    are parameters: give ``method.parameters()`` to the optimizer, in a group without weight decay. What a task's
    objectives have in common moves s, twice as fast as in `UW`.

    Args:
        num_tasks: number of losses, one per objective.
        groups: the task of each loss, as an index from 0; by default each is a task of its own.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        log_task_variances: s, float32, one per task, start at 0.
        log_objective_variances: u, float32, one per loss, start at 0.
    """

    groups: Tensor

    def __init__(
        self, num_tasks: int, *, groups: Sequence[int] | None = None, reduction: str = "sum", nonfinite: str = "raise"
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        groups = range(num_tasks) if groups is None else list(groups)
        if len(groups) != num_tasks or set(groups) != set(range(max(groups) + 1)):
            raise ValueError(f"groups is {groups}, expected the task of each of the {num_tasks} losses: 0, 1, ...")
        self.register_buffer("groups", torch.tensor(groups))
        self.log_task_variances = nn.Parameter(torch.zeros(max(groups) + 1))
        self.log_objective_variances = nn.Parameter(torch.zeros(num_tasks))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted losses and the price of each variance."""
        logs = self.log_objective_variances.double() + self.log_task_variances.double()[self.groups]
        return torch.exp(-logs) @ losses / 2 + logs.sum() / 2
