"""The methods, one class per file; the call is ``method.backward(losses, shared=... or features=...)``."""

from mtl_ext.methods.aligned_mtl import AlignedMTL
from mtl_ext.methods.atw import ATW
from mtl_ext.methods.auto_lambda import AutoLambda
from mtl_ext.methods.base import Method, NonFiniteError
from mtl_ext.methods.cagrad import CAGrad
from mtl_ext.methods.config import ConFIG
from mtl_ext.methods.cosmos import COSMOS
from mtl_ext.methods.cosreg import CosReg
from mtl_ext.methods.crmogm import CRMOGM
from mtl_ext.methods.cvx_weighting import CvxWeighting, minimum_norm_layer
from mtl_ext.methods.db_mtl import DBMTL
from mtl_ext.methods.dtp import DTP
from mtl_ext.methods.dualproj import DualProj
from mtl_ext.methods.dwa import DWA
from mtl_ext.methods.ew import EW
from mtl_ext.methods.excess_mtl import ExcessMTL
from mtl_ext.methods.fairgrad import FairGrad
from mtl_ext.methods.famo import FAMO
from mtl_ext.methods.fixed_weights import FixedWeights
from mtl_ext.methods.forum import FORUM
from mtl_ext.methods.gcs import GCS
from mtl_ext.methods.gls import GLS
from mtl_ext.methods.go4align import GO4Align
from mtl_ext.methods.grad_method import GradMethod, GramMethod
from mtl_ext.methods.graddrop import GradDrop
from mtl_ext.methods.gradnorm import GradNorm
from mtl_ext.methods.gradvac import GradVac
from mtl_ext.methods.ial import IAL
from mtl_ext.methods.imtl import IMTL
from mtl_ext.methods.imtlg import IMTLG
from mtl_ext.methods.imtll import IMTLL
from mtl_ext.methods.krum import Krum
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.mgda import MGDA
from mtl_ext.methods.moco import MoCo
from mtl_ext.methods.modo import MoDo
from mtl_ext.methods.moml import MOML
from mtl_ext.methods.nash_mtl import NashMTL
from mtl_ext.methods.ol_aux import OLAUX
from mtl_ext.methods.pbi import PBI
from mtl_ext.methods.pcd import PCD
from mtl_ext.methods.pcgrad import PCGrad
from mtl_ext.methods.puw import PUW
from mtl_ext.methods.rgw import RGW
from mtl_ext.methods.rlw import RLW
from mtl_ext.methods.saal_e import SAALe
from mtl_ext.methods.saal_w import SAALw
from mtl_ext.methods.sdmgrad import SDMGrad
from mtl_ext.methods.several_batches import SeveralBatches
from mtl_ext.methods.si import SI
from mtl_ext.methods.stch import STCH
from mtl_ext.methods.task_objective_weights import TaskObjectiveWeights
from mtl_ext.methods.trimmed_mean import TrimmedMean
from mtl_ext.methods.upgrad import UPGrad
from mtl_ext.methods.uw import UW

METHODS: dict[str, type[Method]] = {
    cls.__name__: cls
    for cls in (
        AlignedMTL,
        ATW,
        AutoLambda,
        CAGrad,
        ConFIG,
        COSMOS,
        CosReg,
        CRMOGM,
        CvxWeighting,
        DBMTL,
        DTP,
        DualProj,
        DWA,
        EW,
        ExcessMTL,
        FairGrad,
        FAMO,
        FixedWeights,
        FORUM,
        GCS,
        GLS,
        GO4Align,
        GradDrop,
        GradNorm,
        GradVac,
        IAL,
        IMTL,
        IMTLG,
        IMTLL,
        Krum,
        MGDA,
        MoCo,
        MoDo,
        MOML,
        NashMTL,
        OLAUX,
        PBI,
        PCD,
        PCGrad,
        PUW,
        RGW,
        RLW,
        SAALe,
        SAALw,
        SDMGrad,
        SI,
        STCH,
        TaskObjectiveWeights,
        TrimmedMean,
        UPGrad,
        UW,
    )
}

__all__ = [
    "ATW",
    "COSMOS",
    "CRMOGM",
    "DBMTL",
    "DTP",
    "DWA",
    "EW",
    "FAMO",
    "FORUM",
    "GCS",
    "GLS",
    "IAL",
    "IMTL",
    "IMTLG",
    "IMTLL",
    "METHODS",
    "MGDA",
    "MOML",
    "OLAUX",
    "PBI",
    "PCD",
    "PUW",
    "RGW",
    "RLW",
    "SI",
    "STCH",
    "UW",
    "AlignedMTL",
    "AutoLambda",
    "CAGrad",
    "ConFIG",
    "CosReg",
    "CvxWeighting",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "FixedWeights",
    "GO4Align",
    "GradDrop",
    "GradMethod",
    "GradNorm",
    "GradVac",
    "GramMethod",
    "Krum",
    "LossMethod",
    "Method",
    "MoCo",
    "MoDo",
    "NashMTL",
    "NonFiniteError",
    "PCGrad",
    "SAALe",
    "SAALw",
    "SDMGrad",
    "SeveralBatches",
    "TaskObjectiveWeights",
    "TrimmedMean",
    "UPGrad",
    "minimum_norm_layer",
]
