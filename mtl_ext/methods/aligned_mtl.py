"""Aligned-MTL: orthogonal gradients of equal length."""

from collections.abc import Sequence

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_choice
from mtl_ext.methods.grad_method import GramMethod, checked_preference, preference_vector


class AlignedMTL(GramMethod):
    """Aligned-MTL (Senushkin et al. 2023, Algorithm 1): the sum of gradients whose singular values are made equal.

    ``sum_k p_k ĝ_k`` with the rows ĝ of ``sqrt(sigma) (J J^T)^(-1/2) J``, orthogonal and of one length, over the
    singular values of J that rounding leaves above 0. Peers differ: the authors' code sums (p = 1), TorchJD takes the
    mean; LibMTL's fails on every torch that it allows.

    Args:
        scale_mode: sigma is the smallest ("min"), lower median ("median") or mean ("rmse") of the kept eigenvalues of
            the Gram matrix.
        preference: p, K numbers from 0 on; None: ones.
        reduction: ``"sum"`` as in the authors' code, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        *,
        scale_mode: str = "min",
        preference: Sequence[float] | None = None,
        reduction: str = "sum",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_choice("scale_mode", scale_mode, ("min", "median", "rmse"))
        self.scale_mode = scale_mode
        self.preference = checked_preference(preference)

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The balanced weights."""
        preference = preference_vector(self.preference, gram, 1.0)
        weights, _, _ = ops.aligned(gram, self.scale_mode, self.eps, preference)
        return weights
