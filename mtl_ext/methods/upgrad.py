"""UPGrad: every gradient projected away from conflict."""

import torch
from torch import Tensor

from mtl_ext.methods.dualproj import DualProj


class UPGrad(DualProj):
    """Unconflicting projection of gradients (Quinton & Rey 2024, Eq. 5): each freed from conflict, summed.

    ``sum_k p_k proj(g_k)`` with the projection onto the dual cone ``{r: g_j^T r >= 0 for all j}``: the result conflicts
    with no gradient. Solved exactly, at any scale. Peers differ: TorchJD and LibMTL add 1e-4 to the diagonal of the
    scaled Gram matrix, which changes the result by up to 17% (``reg_eps=1e-4`` does the same), and fall back to the
    mean for gradients below an absolute 1e-4.

    Args:
        preference: p, K numbers from 0 on; None: ``1/K``.
        reg_eps: added to the diagonal of ``G / tr G``.
        reduction: ``"mean"`` as in the paper and the peers, or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.
    """

    def lower_bounds(self, preference: Tensor) -> Tensor:
        """One problem for each gradient."""
        return torch.diag(preference)
