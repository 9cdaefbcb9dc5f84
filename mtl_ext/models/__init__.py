"""Networks that say which of their parameters the tasks share."""

from collections.abc import Callable

from mtl_ext.models.architecture import Architecture, Branched, HardSharing
from mtl_ext.models.fpn import FeaturePyramid, resnet_fpn
from mtl_ext.models.half_shared import half_shared
from mtl_ext.models.heads import fresh_copy, make_head
from mtl_ext.models.mlp import mlp
from mtl_ext.models.mtan import mtan
from mtl_ext.models.resnet import ResNet
from mtl_ext.models.rgbd_fusion import RGBDFusion
from mtl_ext.models.self_auxiliary import SelfAuxiliaries
from mtl_ext.models.small_conv import small_conv
from mtl_ext.models.small_dense import small_dense
from mtl_ext.models.split import deeplab, resnet_split
from mtl_ext.models.swin import Swin, swin_split
from mtl_ext.models.transfer import transfer
from mtl_ext.models.vgg import VGG16, vgg16

MODELS: dict[str, Callable[..., Architecture]] = {
    "deeplab": deeplab,
    "half_shared": half_shared,
    "mlp": mlp,
    "mtan": mtan,
    "resnet_fpn": resnet_fpn,
    "resnet_split": resnet_split,
    "small_conv": small_conv,
    "small_dense": small_dense,
    "swin_split": swin_split,
    "transfer": transfer,
    "vgg16": vgg16,
}

__all__ = [
    "MODELS",
    "VGG16",
    "Architecture",
    "Branched",
    "FeaturePyramid",
    "HardSharing",
    "RGBDFusion",
    "ResNet",
    "SelfAuxiliaries",
    "Swin",
    "deeplab",
    "fresh_copy",
    "half_shared",
    "make_head",
    "mlp",
    "mtan",
    "resnet_fpn",
    "resnet_split",
    "small_conv",
    "small_dense",
    "swin_split",
    "transfer",
    "vgg16",
]
