"""GO4Align: weights shared within groups of tasks."""

import math

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import keep_finite


class GO4Align(LossMethod):
    """Group optimisation for alignment (Shen et al. 2024): tasks in adaptive groups, one weight per group.

    In every step ``p <- p exp(-eta L) / sum``, ``s_k = p_k sum_j L_j / L_k``; k-means puts the s into groups, and a
    task's weight is its group's mean. p starts at 1 / K. Peers differ: the authors' code runs Lloyd's iterations from
    random centres; here the grouping is the one of least squared distances, exactly (s is one-dimensional), so nothing
    is drawn. A task with loss 0 gets weight 0.

    Args:
        num_tasks: K.
        num_groups: the authors set it for each data set; all tasks are groups of their own where K is smaller.
        eta: step size.
        reduction: ``"sum"`` as above and in the authors' code, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        log_probabilities: [K] float64, log p.
    """

    log_probabilities: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        num_groups: int = 2,
        eta: float = 1e-4,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("num_groups", num_groups, 1)
        check_range("eta", eta, 0.0)
        self.num_groups = num_groups
        self.eta = eta
        start = torch.full((num_tasks,), -math.log(num_tasks), dtype=torch.float64)
        self.register_buffer("log_probabilities", start)

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        values = losses.detach()
        keep_finite(self.log_probabilities, (self.log_probabilities - self.eta * values).log_softmax(0))
        indicators = self.log_probabilities.exp() * values.sum() / values
        present = values != 0
        weights = group_means(indicators.masked_fill(~present, 0.0), min(self.num_groups, len(values)))
        return (weights * present) @ losses


def group_means(values: Tensor, num_groups: int) -> Tensor:
    """Puts numbers into groups of least squared distances from their means, exactly; gives each its group's mean.

    Optimal groups are runs of the sorted numbers: dynamic programming over where they start.

    Args:
        values: [K] float64.
        num_groups: from 1 to K.

    Returns:
        [K] float64.
    """
    count = len(values)
    ranked, order = values.sort()
    centre = ranked.mean()
    sums = torch.cat([ranked.new_zeros(1), (ranked - centre).cumsum(0)])
    squares = torch.cat([ranked.new_zeros(1), (ranked - centre).square().cumsum(0)])
    ends = torch.arange(count + 1, device=values.device)
    length = ends - ends[:, None]
    cost = squares - squares[:, None] - (sums - sums[:, None]).square() / length
    cost = cost.clamp(min=0.0).masked_fill(length <= 0, torch.inf)  # of a group from start (row) to end (column)
    best, cuts = cost[0], []
    for _ in range(num_groups - 1):
        best, cut = (best[:, None] + cost).min(0)
        cuts.append(cut)
    group, start = torch.zeros_like(order), ends[-1:]
    for cut in reversed(cuts):
        start = cut[start]
        group = group + (ends[:-1] >= start)
    member = (group[:, None] == torch.arange(num_groups, device=values.device)).double()
    means = member.T @ ranked / member.sum(0)
    return (member @ means)[order.argsort()]
