"""TorchJD 0.18 on this package's operators: the same classes, or the same programs.

Either import a class from here instead of from ``torchjd.aggregation``, or call :func:`accelerate` once and leave the
program as it is. Names, arguments, properties, representations, hooks, random draws and errors are TorchJD's, and so
are the results where TorchJD is right. Where it is not, each class says what differs.
"""

from mtl_ext.adapters.patching import Report
from mtl_ext.adapters.torchjd import version
from mtl_ext.adapters.torchjd.aggregators import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    FairGrad,
    GradDrop,
    GradVac,
    NashMTL,
    PCGrad,
    UPGrad,
)
from mtl_ext.adapters.torchjd.patch import LEFT_ALONE, accelerate, accelerated, restore
from mtl_ext.adapters.torchjd.projector import ConeProjector
from mtl_ext.adapters.torchjd.weightings import (
    AlignedMTLWeighting,
    CAGradWeighting,
    DualProjWeighting,
    FairGradWeighting,
    GradVacWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    PCGradWeighting,
    UPGradWeighting,
)

__all__ = [
    "IMTLG",
    "LEFT_ALONE",
    "MGDA",
    "AlignedMTL",
    "AlignedMTLWeighting",
    "CAGrad",
    "CAGradWeighting",
    "ConFIG",
    "ConeProjector",
    "DualProj",
    "DualProjWeighting",
    "FairGrad",
    "FairGradWeighting",
    "GradDrop",
    "GradVac",
    "GradVacWeighting",
    "IMTLGWeighting",
    "MGDAWeighting",
    "NashMTL",
    "PCGrad",
    "PCGradWeighting",
    "Report",
    "UPGrad",
    "UPGradWeighting",
    "accelerate",
    "accelerated",
    "restore",
    "version",
]
