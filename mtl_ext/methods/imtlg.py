"""IMTL-G: equal projections on all gradients."""

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.grad_method import GramMethod


class IMTLG(GramMethod):
    """Impartial learning by gradients (Liu et al. 2021, Eq. 6): the same projection on every task's gradient.

    Weights that sum to 1 and give ``r = sum_k w_k g_k`` equal cosine with all gradients; for dependent gradients, which
    have none unless they are parallel, the least-squares ones. Weights may be negative; where none exist (opposite
    gradients of equal length) the combination is 0. TorchJD does the same with an absolute cut-off; LibMTL solves the
    paper's linear system, which is singular for dependent gradients.

    Args:
        reduction: ``"mean"``, weights that sum to 1, as in the paper and the peers; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        status: of the last solution, see :func:`mtl_ext.ops.imtl_g`.
    """

    formula_gives = "mean"

    def __init__(self, *, reduction: str = "mean", weight_heads: bool = False, nonfinite: str = "raise") -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        self.status: Tensor | None = None

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The impartial weights."""
        weights, _, self.status = ops.imtl_g(gram, self.eps)
        return weights
