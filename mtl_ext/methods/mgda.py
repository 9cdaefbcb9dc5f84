"""MGDA: the shortest convex combination of the gradients."""

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_choice
from mtl_ext.methods.grad_method import GramMethod


class MGDA(GramMethod):
    """Multiple-gradient descent (Désidéri 2012; Sener & Koltun 2018): weights on the simplex of minimum norm.

    ``argmin_w ||sum_k w_k g_k||`` with ``w >= 0`` and ``sum(w) = 1``, solved exactly; its negative is a direction in
    which no task gets worse, and 0 means that the point is Pareto-stationary. At feature level this is MGDA-UB. Peers
    differ: TorchJD and LibMTL run Sener & Koltun's Algorithm 2 (Frank-Wolfe) for a fixed number of steps and end up to
    twice above the minimum norm. A task with a zero gradient is left out (elsewhere it would take all the weight and
    stop training).

    Args:
        normalization: the weights are found on normalised gradients and applied to the raw ones. ``"none"``; ``"l2"``
            divides by ``||g_k||``; ``"loss"`` by ``L_k``; ``"loss+"`` by ``L_k ||g_k||``.
        reduction: ``"mean"``, weights that sum to 1, as in the paper's code; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        normalization: str = "none",
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_choice("normalization", normalization, ("none", "l2", "loss", "loss+"))
        self.normalization = normalization

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The minimum-norm point of the (normalised) Gram matrix."""
        scale = gram.new_ones(len(gram))
        if self.normalization in ("l2", "loss+"):
            scale = scale * gram.diagonal().sqrt()
        if self.normalization in ("loss", "loss+"):
            scale = scale * losses.abs()
        inverse = (1 / scale).masked_fill(scale == 0, 0.0)
        weights, _, _ = ops.min_norm(inverse[:, None] * gram * inverse)
        return weights
