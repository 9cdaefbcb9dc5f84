"""What papers compare with that is neither a method nor a penalty."""

from mtl_ext.comparators.pta import PTA
from mtl_ext.comparators.sam import SAM

__all__ = ["PTA", "SAM"]
