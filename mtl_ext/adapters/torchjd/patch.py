"""`accelerate()` and `restore()`: TorchJD's own classes on this package's operators.

Methods are replaced inside TorchJD's classes, and functions in the modules that call them. So instances that exist
already, names that were imported before, subclasses, ``isinstance`` and pickles see the same classes as ever.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torchjd.aggregation as peer
from torch import Tensor
from torchjd import scalarization
from torchjd._linalg import compute_gramian
from torchjd.aggregation._nash_mtl import _NashMTLWeighting
from torchjd.aggregation._weighting_bases import _Composition
from torchjd.autojac import _jac_to_grad
from torchjd.linalg import QuadprogProjector

from mtl_ext.adapters.patching import Patch, Replacement, Report
from mtl_ext.adapters.torchjd import aggregators, engine, weightings
from mtl_ext.adapters.torchjd.problem import combine_rows, gramian_of
from mtl_ext.adapters.torchjd.projector import projection_weights

_NO_OPERATOR = "no operator computes its weights; its Gram matrix and combination are accelerated"
_VALUE_FREE = "its weights take no time; its combination is accelerated"
_ELEMENTWISE = "element-wise on the whole Jacobian, in few passes"
_WRAPPER = "the moving average takes no time; what it wraps is accelerated"
_SIMPLEX = "its projections onto the simplex of [m] values take as long in an operator"
_SCALARIZER = "a few operations on [m] values: a kernel would gain nothing"

# Public names of TorchJD that stay as they are, and why.
LEFT_ALONE: dict[str, str] = {
    "aggregation.CRMOGMWeighting": _WRAPPER,
    "aggregation.Constant": _VALUE_FREE,
    "aggregation.ExcessMTL": _ELEMENTWISE,
    "aggregation.Krum": _NO_OPERATOR,
    "aggregation.Mean": _VALUE_FREE,
    "aggregation.MoDoWeighting": _SIMPLEX,
    "aggregation.PCD": _NO_OPERATOR,
    "aggregation.Random": _VALUE_FREE,
    "aggregation.SDMGradWeighting": _SIMPLEX,
    "aggregation.Sum": _VALUE_FREE,
    "aggregation.TrimmedMean": "it sorts every column",
    "autojac.backward": "autograd's time, not TorchJD's",
    "autojac.jac": "autograd's time, not TorchJD's",
    "autojac.mtl_backward": "autograd's time, not TorchJD's",
} | {f"scalarization.{name}": _SCALARIZER for name in scalarization.__all__ if name != "Scalarizer"}

_patch = Patch()


def accelerate(*, skip: Iterable[str] = (), cutoffs: bool = False) -> Report:
    """Puts this package's operators under TorchJD's names, until `restore`. A second call changes nothing.

    Args:
        skip: names that stay TorchJD's, for example ``["MGDA"]`` to keep its early stop.
        cutoffs: honour the absolute ``norm_eps`` of `QuadprogProjector` and `CAGrad`, below which TorchJD's UPGrad and
            DualProj become the mean and CAGrad becomes 0; by default it is taken for 0. ``reg_eps`` is always honoured.

    Returns:
        The report, which goes on counting.

    Raises:
        ValueError: ``skip`` names what is not replaced.
    """
    if _patch.report is not None:
        return _patch.report
    return _patch.apply(replacements(cutoffs), skip, LEFT_ALONE)


def restore() -> None:
    """Gives TorchJD everything back. A `NashMTL` that was used meanwhile needs its ``reset()``."""
    _patch.undo()


@contextmanager
def accelerated(*, skip: Iterable[str] = (), cutoffs: bool = False) -> Iterator[Report]:
    """`accelerate` for a ``with`` block; what was accelerated before it stays so after it."""
    outer = _patch.report is not None
    report = accelerate(skip=skip, cutoffs=cutoffs)
    try:
        yield report
    finally:
        if not outer:
            restore()


def replacements(cutoffs: bool) -> list[Replacement]:
    """All that `accelerate` puts in place."""

    def cagrad(self: peer.CAGradWeighting, gramian: Tensor, /) -> Tensor:
        return weightings.cagrad_weights(gramian, self.c, self.norm_eps if cutoffs else 0.0)

    @torch.no_grad()
    def project(self: QuadprogProjector, U: Tensor, G: Tensor) -> Tensor:
        return projection_weights(U, G, self.norm_eps if cutoffs else 0.0, self.reg_eps)

    return [
        Replacement("AlignedMTL", peer.AlignedMTLWeighting, "forward", weightings.AlignedMTLWeighting.forward),
        Replacement("CAGrad", peer.CAGradWeighting, "forward", cagrad),
        Replacement("ConFIG", peer.ConFIG, "forward", aggregators.ConFIG.forward),
        Replacement("FairGrad", peer.FairGradWeighting, "forward", weightings.FairGradWeighting.forward),
        Replacement("GradDrop", peer.GradDrop, "forward", aggregators.GradDrop.forward),
        Replacement("GradVac", peer.GradVacWeighting, "forward", weightings.GradVacWeighting.forward),
        Replacement("IMTLG", peer.IMTLGWeighting, "forward", weightings.IMTLGWeighting.forward),
        Replacement("MGDA", peer.MGDAWeighting, "forward", weightings.MGDAWeighting.forward),
        Replacement("NashMTL", _NashMTLWeighting, "forward", weightings.NashMTLWeighting.forward),
        Replacement("PCGrad", peer.PCGradWeighting, "forward", weightings.PCGradWeighting.forward),
        Replacement("QuadprogProjector", QuadprogProjector, "__call__", project),
        Replacement("WeightedAggregator", _Composition, "forward", composed),
        Replacement("WeightedAggregator", peer.WeightedAggregator, "_combine", combine_rows),
        Replacement("jac_to_grad", _jac_to_grad, "_jacobian_based", engine.jacobian_based),
        Replacement("jac_to_grad", _jac_to_grad, "_gramian_based", engine.gramian_based),
    ]


def composed(self: _Composition[Tensor], stat: Tensor, /) -> Tensor:
    """`_Composition.forward` with this package's Gram matrix."""
    function = gramian_of if self.fn is compute_gramian else self.fn
    weights: Tensor = self.weighting(function(stat))
    return weights
