"""Krum: the gradient that has the closest neighbours."""

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod


class Krum(GramMethod):
    """Krum and Multi-Krum (Blanchard et al. 2017, section 4): the mean of the gradients closest to their neighbours.

    A task's score is the sum of its distances to its ``K - n_byzantine - 2`` nearest neighbours (at least one); the
    ``n_selected`` tasks of lowest score have weight ``1 / n_selected``, the others 0. Ties go to the first task. With
    two tasks both scores are equal. A task with a zero gradient is a neighbour to the others but selected last.
    Distances are not squared, as in TorchJD (the paper squares them); TorchJD refuses ``K < n_byzantine + 3`` also
    where ``n_byzantine`` is 0, and has no default for it.

    Args:
        n_byzantine: the number of tasks whose gradients may be arbitrarily bad; above 0, K must be at least
            ``n_byzantine + 3``.
        n_selected: the number of gradients that are averaged, at most K.
        reduction: ``"mean"``, weights that sum to 1, as in the paper; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        n_byzantine: int = 0,
        n_selected: int = 1,
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("n_byzantine", n_byzantine, 0)
        check_range("n_selected", n_selected, 1)
        self.n_byzantine = n_byzantine
        self.n_selected = n_selected

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """Equal weights for the tasks of the lowest scores."""
        num_tasks = len(gram)
        least = max(self.n_byzantine + 3 if self.n_byzantine else 1, self.n_selected)
        if num_tasks < least:
            found = f"n_byzantine = {self.n_byzantine} and n_selected = {self.n_selected}"
            raise ValueError(f"losses has {num_tasks} tasks, expected at least {least} for {found}")
        squares = gram.diagonal()
        distances = (squares[:, None] + squares - 2 * gram).clamp_min(0.0).sqrt()
        distances.fill_diagonal_(torch.inf)
        neighbours = min(max(num_tasks - self.n_byzantine - 2, 1), num_tasks - 1)
        scores = distances.sort(-1).values[:, :neighbours].sum(-1).masked_fill(squares == 0, torch.inf)
        selected = scores.sort(stable=True).indices[: self.n_selected]
        return torch.zeros_like(scores).index_fill(0, selected, 1 / self.n_selected)
