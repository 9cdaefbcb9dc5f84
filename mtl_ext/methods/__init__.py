"""The methods, one class per file; the call is ``method.backward(losses, shared=... or features=...)``."""

from mtl_ext.methods.base import Method, NonFiniteError
from mtl_ext.methods.ew import EW
from mtl_ext.methods.grad_method import GradMethod, GramMethod
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.mgda import MGDA
from mtl_ext.methods.pcgrad import PCGrad
from mtl_ext.methods.rlw import RLW
from mtl_ext.methods.uw import UW

METHODS: dict[str, type[Method]] = {cls.__name__: cls for cls in (EW, MGDA, PCGrad, RLW, UW)}

__all__ = [
    "EW",
    "METHODS",
    "MGDA",
    "RLW",
    "UW",
    "GradMethod",
    "GramMethod",
    "LossMethod",
    "Method",
    "NonFiniteError",
    "PCGrad",
]
