"""The seven dense tasks of the rendered scenes: their losses and metrics."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.scenes.scene import CLASSES
from mtl_ext.data.task import Task
from mtl_ext.metrics import AbsoluteError, MeanIoU, Metric

PARTS = 3


def normals_cosine(output: Tensor, target: Tensor) -> Tensor:
    """``1 - cos`` between directions [B, 3, H, W] and unit vectors of the same shape, mean over pixels."""
    return 1 - functional.cosine_similarity(output, target, dim=1).mean()


def balanced_bce(output: Tensor, target: Tensor, positive: float | None = 0.95) -> Tensor:
    """Binary cross entropy of logits [B, 1, H, W] with targets 0 or 1 of the same shape, mean over pixels.

    Pixels of class 1 weigh `positive`, others 1 minus that; None is the batch's share of class 0.
    """
    weight = 1 - target.mean() if positive is None else torch.tensor(positive)
    weights = torch.where(target > 0.5, weight, 1 - weight)
    return functional.binary_cross_entropy_with_logits(output, target, weights)


class MeanOf(Metric):
    """A mean over the pixels of the split."""

    higher_is_better = False

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """What the mean is taken of."""
        raise NotImplementedError

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds outputs and targets of one shape."""
        values = self.values(output.double(), target.double())
        self.total += float(values.sum())
        self.count += values.numel()

    def compute(self) -> float:
        """The mean; NaN when nothing was added."""
        return self.total / self.count if self.count else float("nan")


class RelativeError(MeanOf):
    """Mean of ``|output - target| / target``."""

    name = "rel err"

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Relative errors."""
        return (output - target).abs() / target


class MeanAngle(MeanOf):
    """Mean angle between directions [B, 3, H, W], in degrees."""

    name = "mean °"

    def values(self, output: Tensor, target: Tensor) -> Tensor:
        """Angles [B, H, W]."""
        return functional.cosine_similarity(output, target, dim=1).clamp(-1, 1).acos().rad2deg()


class BinaryIoU(Metric):
    """Intersection over union of the pixels of class 1, in percent, over the whole split."""

    name = "IoU %"
    higher_is_better = True

    def __init__(self) -> None:
        self.intersection = 0
        self.union = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits and targets 0 or 1 of one shape."""
        found, true = output > 0, target > 0.5
        self.intersection += int((found & true).sum())
        self.union += int((found | true).sum())

    def compute(self) -> float:
        """IoU in percent; NaN where neither is anything."""
        return 100.0 * self.intersection / self.union if self.union else float("nan")


TASKS = (
    Task("semantics", "pixels", len(CLASSES), functional.cross_entropy, (partial(MeanIoU, len(CLASSES)),)),
    Task("parts", "pixels", PARTS, functional.cross_entropy, (partial(MeanIoU, PARTS),)),
    Task("depth", "pixels", 1, functional.l1_loss, (AbsoluteError, RelativeError)),
    Task("normals", "pixels", 3, normals_cosine, (MeanAngle,)),
    Task("edges", "pixels", 1, balanced_bce, (BinaryIoU,)),
    Task("saliency", "pixels", 1, partial(balanced_bce, positive=None), (BinaryIoU,)),
    Task("occlusion", "pixels", 1, partial(balanced_bce, positive=None), (BinaryIoU,)),
)
