"""The seven dense tasks of a rendered scene."""

from functools import partial

from mtl_ext.data.losses import balanced_bce, masked_l1, normals_cosine, pixel_cross_entropy
from mtl_ext.data.scenes.scene import CLASSES
from mtl_ext.data.task import Task
from mtl_ext.metrics import AbsoluteError, MaxIoU, MeanAngle, MeanIoU, OdsF, RelativeError

PARTS = 3

TASKS = (
    Task("semantics", "pixels", len(CLASSES), pixel_cross_entropy, (partial(MeanIoU, len(CLASSES)),)),
    Task("parts", "pixels", PARTS, pixel_cross_entropy, (partial(MeanIoU, PARTS),)),
    Task("depth", "pixels", 1, masked_l1, (AbsoluteError, RelativeError)),
    Task("normals", "pixels", 3, normals_cosine, (MeanAngle,)),
    Task("edges", "pixels", 1, balanced_bce, (OdsF,)),
    Task("saliency", "pixels", 1, partial(balanced_bce, positive=None), (MaxIoU,)),
    Task("occlusion", "pixels", 1, partial(balanced_bce, positive=None), (MaxIoU,)),
)
