"""TorchJD's aggregators on this package's weightings, Gram matrix and combination.

Each is a subclass of its namesake, with the same arguments, properties, representation and hooks. Gradients in half
precision have a float32 Gram matrix and float32 weights; the result has the Jacobian's dtype. A row of weight 0 is not
read, so that a non-finite one can be left out.
"""

from collections.abc import Callable
from typing import cast

import torch
import torchjd.aggregation as peer
from torch import Tensor
from torchjd.aggregation._graddrop import _identity
from torchjd.aggregation._nash_mtl import _NashMTLWeighting
from torchjd.aggregation._weighting_bases import Weighting
from torchjd.linalg import DualConeProjector, Matrix, PSDMatrix

from mtl_ext import ops
from mtl_ext.adapters.torchjd import weightings
from mtl_ext.adapters.torchjd.problem import combine_rows, common_dtype, gramian_of, has_operators, task_major

WEIGHTINGS: dict[type, type] = {
    _NashMTLWeighting: weightings.NashMTLWeighting,
    peer.AlignedMTLWeighting: weightings.AlignedMTLWeighting,
    peer.CAGradWeighting: weightings.CAGradWeighting,
    peer.FairGradWeighting: weightings.FairGradWeighting,
    peer.GradVacWeighting: weightings.GradVacWeighting,
    peer.IMTLGWeighting: weightings.IMTLGWeighting,
    peer.MGDAWeighting: weightings.MGDAWeighting,
    peer.PCGradWeighting: weightings.PCGradWeighting,
}

# As TorchJD has it, for functions of the purity that the operator does not take.
_graddrop_by_torchjd: Callable[..., Tensor] = peer.GradDrop.forward


class _GramianWeightedAggregator(peer.GramianWeightedAggregator):
    """Comes between TorchJD's aggregator and its base: takes the weighting that the former hands to the latter.

    The weightings differ in their methods alone, so that one becomes the other by a change of class.
    """

    _combine = staticmethod(combine_rows)

    def __init__(self, gramian_weighting: Weighting[PSDMatrix]) -> None:
        gramian_weighting.__class__ = WEIGHTINGS.get(type(gramian_weighting), type(gramian_weighting))
        super().__init__(gramian_weighting)
        self.weighting = gramian_weighting << cast(Callable[[Matrix], PSDMatrix], gramian_of)


class PCGrad(peer.PCGrad, _GramianWeightedAggregator):
    """PCGrad (Yu et al. 2020, Algorithm 1): see `PCGradWeighting`."""


class GradVac(peer.GradVac, _GramianWeightedAggregator):
    """GradVac (Wang et al. 2021): see `GradVacWeighting`."""


class MGDA(peer.MGDA, _GramianWeightedAggregator):
    """MGDA (Désidéri 2012): see `MGDAWeighting`."""


class CAGrad(peer.CAGrad, _GramianWeightedAggregator):
    """CAGrad (Liu et al. 2021): see `CAGradWeighting`."""

    def __init__(self, c: float, norm_eps: float = 0.0) -> None:
        super().__init__(c, norm_eps)


class AlignedMTL(peer.AlignedMTL, _GramianWeightedAggregator):
    """Aligned-MTL (Senushkin et al. 2023): see `AlignedMTLWeighting`."""


class IMTLG(peer.IMTLG, _GramianWeightedAggregator):
    """IMTL-G (Liu et al. 2021): see `IMTLGWeighting`."""


class FairGrad(peer.FairGrad, _GramianWeightedAggregator):
    """FairGrad (Ban & Ji 2024): see `FairGradWeighting`."""


class UPGrad(peer.UPGrad, _GramianWeightedAggregator):
    """UPGrad (Quinton & Rey 2024): see `UPGradWeighting` and `ConeProjector`."""

    def __init__(self, pref_vector: Tensor | None = None, projector: DualConeProjector | None = None) -> None:
        super(peer.UPGrad, self).__init__(weightings.UPGradWeighting(pref_vector, projector=projector))


class DualProj(peer.DualProj, _GramianWeightedAggregator):
    """DualProj (Lopez-Paz & Ranzato 2017, Equation 11): see `DualProjWeighting` and `ConeProjector`."""

    def __init__(self, pref_vector: Tensor | None = None, projector: DualConeProjector | None = None) -> None:
        super(peer.DualProj, self).__init__(weightings.DualProjWeighting(pref_vector, projector=projector))


class NashMTL(peer.NashMTL):
    """Nash-MTL (Navon et al. 2022): see `NashMTLWeighting`."""

    _combine = staticmethod(combine_rows)

    def __init__(
        self, n_tasks: int, max_norm: float = 1.0, update_weights_every: int = 1, optim_niter: int = 20
    ) -> None:
        super().__init__(n_tasks, max_norm, update_weights_every, optim_niter)
        self.weighting.__class__ = WEIGHTINGS[type(self.weighting)]


class GradDrop(peer.GradDrop):
    """GradDrop (Chen et al. 2020, Algorithm 1). Draws one ``rand(n)`` in the matrix's dtype, as TorchJD does.

    An element whose draw is within rounding (2^-24) of its purity may pass on one side and not on the other. Another
    ``f`` than the identity is TorchJD's own code.
    """

    def forward(self, matrix: Tensor, /) -> Tensor:
        """The gradient [n] of a Jacobian [m, n]."""
        if self.f is not _identity or matrix.numel() == 0 or not has_operators([matrix]):
            return _graddrop_by_torchjd(self, matrix)
        self._check_matrix_shape(matrix)
        return passed_gradients(self, [matrix])[0]


def passed_gradients(aggregator: peer.GradDrop, jacobians: list[Tensor]) -> list[Tensor]:
    """GradDrop's gradients of P Jacobians [m, *shape], with the draw of their concatenation."""
    dtype = common_dtype(jacobians)
    sizes = [jacobian[0].numel() for jacobian in jacobians]
    draw = torch.rand(sum(sizes), dtype=dtype, device=jacobians[0].device)
    if dtype == torch.float64:
        # Towards 0: rounded up to 1 it would drop what all tasks agree on.
        draw = (draw * 2**24).floor() * 2**-24
    parts = torch.split(draw.to(torch.float32), sizes)
    uniform = [part.view(jacobian.shape[1:]) for part, jacobian in zip(parts, jacobians, strict=True)]
    leak = None if aggregator.leak is None else aggregator.leak.to(draw.device, torch.float64)
    return ops.graddrop(task_major(jacobians), len(jacobians[0]), uniform=uniform, leak=leak)


class ConFIG(peer.ConFIG):
    """ConFIG (Liu et al. 2025, Equation 2), from the Gram matrix instead of a singular value decomposition of J.

    Peers differ: TorchJD cuts singular values of the unit gradients below ``max(m, n) eps`` of the largest, which is
    0.12 for a million float32 parameters. Here eigenvalues of their Gram matrix up to ``m eps`` of the largest count as
    0, eps that of the weights' dtype.
    """

    def forward(self, matrix: Tensor, /) -> Tensor:
        """The gradient [n] of a Jacobian [m, n]."""
        return combine_rows(matrix, config_weights(self, gramian_of(matrix)))


def config_weights(aggregator: peer.ConFIG, gramian: Tensor) -> Tensor:
    """Weights [m] of ConFIG's gradient: ``u = pinv(U) p`` for the unit gradients U, as long as the projections sum to.

    With ``C = U U^T``, ``pinv(U) = U^T pinv(C)``.
    """
    preference = aggregator.weighting(gramian).to(gramian.device, torch.float64)
    finite = gramian.isfinite().all()
    problem = torch.where(finite, gramian.to(torch.float64), 0.0)
    lengths = problem.diagonal().sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    values, vectors = torch.linalg.eigh(problem * inverse[:, None] * inverse)
    largest = values.max() if len(values) else 0.0
    kept = values > len(values) * torch.finfo(gramian.dtype).eps * largest
    solved = vectors @ (torch.where(kept, 1 / values, 0.0) * (vectors.T @ preference)) * inverse
    square = solved @ problem @ solved
    direction = torch.where(square > 0, solved / square.sqrt(), 0.0)
    weights = (problem @ direction).sum() * direction
    return torch.where(finite, weights, torch.nan).to(gramian.dtype)
