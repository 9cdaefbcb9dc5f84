"""Networks that say which of their parameters the tasks share."""

from mtl_ext.models.architecture import Architecture, HardSharing
from mtl_ext.models.small_conv import small_conv

MODELS = {"small_conv": small_conv}

__all__ = ["MODELS", "Architecture", "HardSharing", "small_conv"]
