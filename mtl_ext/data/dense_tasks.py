"""The tasks that dense data sets have in common, with their usual losses and metrics."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from mtl_ext.data.losses import masked_l1, pixel_cross_entropy
from mtl_ext.data.task import Task
from mtl_ext.methods.base import check_choice
from mtl_ext.metrics import (
    AbsoluteError,
    MeanAngle,
    MeanIoU,
    MedianAngle,
    PixelAccuracy,
    RelativeError,
    WithinAngle,
)


def segmentation_task(name: str, classes: int, ignore: int = -1) -> Task:
    """Classes per pixel: cross entropy, mIoU and pixel accuracy."""
    loss = partial(pixel_cross_entropy, ignore=ignore)
    return Task(name, "pixels", classes, loss, (partial(MeanIoU, classes), PixelAccuracy))


def value_task(name: str, invalid: float, reduction: str) -> Task:
    """Depth or disparity: L1, absolute and relative error where the target is not `invalid`.

    Args:
        name: of the task.
        invalid: the mark of pixels without a label.
        reduction: how errors are averaged, see :class:`mtl_ext.metrics.regression.ValueMetric`.

    Raises:
        ValueError: an unknown reduction.
    """
    check_choice("reduction", reduction, ("exact", "batch_mean", "sample_weighted"))
    metrics = tuple(partial(make, invalid=invalid, reduction=reduction) for make in (AbsoluteError, RelativeError))
    return Task(name, "pixels", 1, partial(masked_l1, invalid=invalid), metrics)


def normals_task(name: str, loss: Callable[..., Tensor], reduction: str, mask: str) -> Task:
    """Surface normals: the usual five measures of their angles.

    Args:
        name: of the task.
        loss: :func:`normals_l1` or :func:`normals_cosine`.
        reduction: how angles are averaged, see :class:`mtl_ext.metrics.normals.AngleMetric`.
        mask: which pixels count, in the loss and in the measures, see there.
    """
    options = {"reduction": reduction, "mask": mask}
    within = tuple(partial(WithinAngle, threshold, **options) for threshold in (11.25, 22.5, 30.0))
    loss = partial(loss, by_norm=mask == "norm")
    return Task(name, "pixels", 3, loss, (partial(MeanAngle, **options), partial(MedianAngle, **options), *within))
