"""DualProj: the mean projected away from conflict."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod, checked_preference, preference_vector


class DualProj(GramMethod):
    """Projection onto the dual cone (GEM, Lopez-Paz & Ranzato 2017, Eq. 8): the mean freed from conflict.

    ``proj(sum_k p_k g_k)`` onto ``{r: g_j^T r >= 0 for all j}``. Solved exactly, at any scale; TorchJD adds 1e-4 to the
    diagonal of the scaled Gram matrix (``reg_eps=1e-4`` does the same), and falls back to the mean for gradients below
    an absolute 1e-4.

    Args:
        preference: p, K numbers from 0 on; None: ``1/K``.
        reg_eps: added to the diagonal of ``G / tr G``.
        reduction: ``"mean"`` as above and in the peers, or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        preference: Sequence[float] | None = None,
        reg_eps: float = 0.0,
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("reg_eps", reg_eps, 0.0)
        self.preference = checked_preference(preference)
        self.reg_eps = reg_eps

    def lower_bounds(self, preference: Tensor) -> Tensor:
        """The problems' lower bounds [M, K] for preferences [K]; their solutions are added."""
        return preference[None]

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The weights of the projections."""
        num_tasks = len(gram)
        preference = preference_vector(self.preference, gram, 1 / num_tasks)
        # Products of float32 gradients leave a Gram matrix of dependent gradients indefinite by their rounding.
        rounding = num_tasks * min(self.eps, torch.finfo(torch.float32).eps)
        ridge = rounding * gram.diagonal() + self.reg_eps * gram.trace()
        weights, _, _ = ops.dual_cone(gram + torch.diag(ridge), self.lower_bounds(preference))
        return weights.sum(0)
