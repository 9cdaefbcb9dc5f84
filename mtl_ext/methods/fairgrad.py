"""FairGrad: alpha-fair progress of the tasks."""

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod, shortened
from mtl_ext.ops.kxk import SOLVED


class FairGrad(GramMethod):
    """Fair gradient (Ban & Ji 2024, Eq. 8): weights with ``G w = w^(-1/alpha)``, so that no task's progress is starved.

    ``alpha = 1`` is the Nash bargaining solution, a large alpha maximises the smallest progress. Multiplying all
    gradients by s multiplies the combination's length by ``s^((1 - alpha) / (1 + alpha))`` before the bound; its
    direction stays. Where 0 lies in the convex hull of the gradients there is no solution, and the combination is 0.
    Peers differ: the authors' code and LibMTL hand the equation to a least-squares solver, and multiply by K; TorchJD
    does not multiply and has no bound.

    Args:
        alpha: fairness, above 0; the authors take 2 for NYUv2.
        max_norm: bound on the length of the combination, as in the authors' code; None: no bound.
        reduction: ``"sum"`` as in the authors' code: times K, before the bound; or ``"mean"``: the weights themselves.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        status: of the last solution, see :func:`mtl_ext.ops.fairgrad`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        max_norm: float | None = 1.0,
        reduction: str = "sum",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("alpha", alpha, 0.0, open_low=True)
        if max_norm is not None:
            check_range("max_norm", max_norm, 0.0, open_low=True)
        self.alpha = alpha
        self.max_norm = max_norm
        self.status: Tensor | None = None

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The alpha-fair weights."""
        weights, _, self.status = ops.fairgrad(gram, self.alpha)
        return weights.where(self.status == SOLVED, 0.0)

    def applied_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The same, reduced, then bounded."""
        return shortened(super().applied_weights(gram, losses), gram, self.max_norm)
