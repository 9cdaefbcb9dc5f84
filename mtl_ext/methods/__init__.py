"""The methods, one class per file; the call is ``method.backward(losses, shared=... or features=...)``."""

from mtl_ext.methods.atw import ATW
from mtl_ext.methods.base import Method, NonFiniteError
from mtl_ext.methods.cosmos import COSMOS
from mtl_ext.methods.crmogm import CRMOGM
from mtl_ext.methods.dtp import DTP
from mtl_ext.methods.dwa import DWA
from mtl_ext.methods.ew import EW
from mtl_ext.methods.famo import FAMO
from mtl_ext.methods.fixed_weights import FixedWeights
from mtl_ext.methods.gls import GLS
from mtl_ext.methods.go4align import GO4Align
from mtl_ext.methods.grad_method import GradMethod, GramMethod
from mtl_ext.methods.gradnorm import GradNorm
from mtl_ext.methods.imtll import IMTLL
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.mgda import MGDA
from mtl_ext.methods.pbi import PBI
from mtl_ext.methods.pcgrad import PCGrad
from mtl_ext.methods.puw import PUW
from mtl_ext.methods.rlw import RLW
from mtl_ext.methods.si import SI
from mtl_ext.methods.stch import STCH
from mtl_ext.methods.task_objective_weights import TaskObjectiveWeights
from mtl_ext.methods.uw import UW

METHODS: dict[str, type[Method]] = {
    cls.__name__: cls
    for cls in (
        ATW,
        COSMOS,
        CRMOGM,
        DTP,
        DWA,
        EW,
        FAMO,
        FixedWeights,
        GLS,
        GO4Align,
        GradNorm,
        IMTLL,
        MGDA,
        PBI,
        PCGrad,
        PUW,
        RLW,
        SI,
        STCH,
        TaskObjectiveWeights,
        UW,
    )
}

__all__ = [
    "ATW",
    "COSMOS",
    "CRMOGM",
    "DTP",
    "DWA",
    "EW",
    "FAMO",
    "GLS",
    "IMTLL",
    "METHODS",
    "MGDA",
    "PBI",
    "PUW",
    "RLW",
    "SI",
    "STCH",
    "UW",
    "FixedWeights",
    "GO4Align",
    "GradMethod",
    "GradNorm",
    "GramMethod",
    "LossMethod",
    "Method",
    "NonFiniteError",
    "PCGrad",
    "TaskObjectiveWeights",
]
