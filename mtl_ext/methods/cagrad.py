"""CAGrad: the best worst case near the mean gradient."""

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.methods.grad_method import GramMethod


class CAGrad(GramMethod):
    """Conflict-averse gradient (Liu et al. 2021, Algorithm 1): of the steps near the mean, the best for the worst task.

    ``d = g_0 + (c ||g_0|| / ||g_w||) g_w`` with the mean gradient g_0 and w on the simplex the minimiser of
    ``g_w^T g_0 + c ||g_0|| ||g_w||``, solved exactly. Where ``||g_w||`` or ``||g_0||`` vanishes, the point is
    Pareto-stationary and the combination is 0. Peers differ: TorchJD and LibMTL take conic or quasi-Newton solvers, and
    TorchJD returns 0 for every matrix of a norm below 1e-2; the authors' code multiplies by K, TorchJD and LibMTL do
    not.

    Args:
        c: radius of the ball around the mean, relative to its length.
        rescale: 0: as above; 1: divided by ``1 + c^2``, as in the authors' code; 2: by ``1 + c``.
        reduction: ``"sum"`` as in the authors' code, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        status: of the last solution, see :func:`mtl_ext.ops.cagrad`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        c: float = 0.4,
        rescale: int = 1,
        reduction: str = "sum",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("c", c, 0.0)
        check_choice("rescale", rescale, (0, 1, 2))
        self.c = c
        self.rescale = rescale
        self.status: Tensor | None = None

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The solver's weights, rescaled; 0 where there are none."""
        weights, _, self.status = ops.cagrad(gram, self.c, self.eps)
        factor = (1.0, 1 / (1 + self.c**2), 1 / (1 + self.c))[self.rescale]
        return weights.where(self.status == 0, 0.0) * factor
