"""Nash-MTL: the gradients' bargaining solution."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod, shortened
from mtl_ext.ops.kxk import NON_FINITE, SOLVED


class NashMTL(GramMethod):
    """Nash-MTL (Navon et al. 2022, Algorithm 1): the Nash bargaining solution ``G a = 1 / a``, ``a > 0``.

    The combination ``sum_k a_k g_k``, whose length is sqrt(K) whatever the gradients' scale, is shortened to at most
    ``max_norm``. The equation is solved exactly, in every call that updates the weights; where 0 lies in the convex
    hull of the gradients there is no solution, the point is Pareto-stationary, and the combination is 0. Peers differ:
    the authors' loop over a conic solver, which TorchJD and LibMTL share, returns wrong weights without a word, always
    for gradients shorter than 1e-3, and first calls more often than later ones.

    Args:
        num_tasks: K.
        max_norm: bound on the length of the combination; None: no bound.
        update_every: steps for which weights are kept. In between, they are those of an earlier step's gradients.
        reduction: ``"mean"``: the weights a as they are, as in the authors' code; or ``"sum"``: times K. The bound
            comes after it, as with `FairGrad`, whose weights for ``alpha=1`` are the same.
        weight_heads: see `GradMethod`; heads get the weights without the shortening, as in the authors' code.
        nonfinite: see `Method`.

    Attributes:
        bargaining: [K] float64, the weights a in use.
        status: of the last solution, see :func:`mtl_ext.ops.nash`.
    """

    formula_gives = "mean"
    bargaining: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        max_norm: float | None = 1.0,
        update_every: int = 1,
        reduction: str = "mean",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_range("update_every", update_every, 1)
        if max_norm is not None:
            check_range("max_norm", max_norm, 0.0, open_low=True)
        self.max_norm = max_norm
        self.update_every = update_every
        self.status: Tensor | None = None
        self.register_buffer("bargaining", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The bargaining weights."""
        if len(gram) != len(self.bargaining):
            raise ValueError(f"losses has {len(gram)} tasks, expected num_tasks = {len(self.bargaining)}")
        weights, _, self.status = ops.nash(gram)
        weights = weights.where(self.status == SOLVED, 0.0)
        if self.update_every > 1:
            due = (self.steps % self.update_every == 0) & (self.status != NON_FINITE)
            weights = torch.where(due, weights, self.bargaining)
            self.steps += 1
        self.bargaining.copy_(weights)
        return weights

    def applied_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The same, reduced, then shortened."""
        return shortened(super().applied_weights(gram, losses), gram, self.max_norm)

    def head_weights(self, weights: Tensor) -> Tensor:
        """The weights without the shortening, which is about the shared parameters."""
        unshortened = self.reduction_factor(len(weights)) * self.bargaining
        return torch.where(weights.isfinite().all() & (weights != 0).any(), unshortened, weights)
