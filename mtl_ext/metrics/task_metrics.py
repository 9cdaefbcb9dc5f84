"""Measures of one task's quality over a whole split, accumulated batch by batch."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor


class Metric(ABC):
    """A number that summarises a task's outputs over a split.

    Attributes:
        name: what tables call it.
        higher_is_better: the direction, for Delta_MTL.
    """

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]

    @abstractmethod
    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds one batch."""

    @abstractmethod
    def compute(self) -> float:
        """The value over everything added so far; NaN when nothing was."""


class Accuracy(Metric):
    """Share of samples whose largest logit is the target class, in percent."""

    name = "acc %"
    higher_is_better = True

    def __init__(self) -> None:
        self.correct = 0
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, C] and classes [B]."""
        self.correct += int((output.argmax(dim=1) == target).sum())
        self.count += target.numel()

    def compute(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.correct / self.count if self.count else float("nan")


class MeanIoU(Metric):
    """Mean over classes of intersection over union, in percent, from one confusion matrix over the split.

    Pixels whose target lies outside 0 .. C - 1 (the ignore label) do not count, nor do classes that occur neither in
    the targets nor in the predictions.
    """

    name = "mIoU %"
    higher_is_better = True

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, C, H, W] and classes [B, H, W]."""
        valid = (target >= 0) & (target < self.num_classes)
        pairs = target[valid] * self.num_classes + output.argmax(dim=1)[valid]
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        self.confusion += counts.view(self.num_classes, self.num_classes).cpu()

    def compute(self) -> float:
        """Mean IoU in percent."""
        intersection = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        return 100.0 * float((intersection / union)[union > 0].mean())


class AbsoluteError(Metric):
    """Mean absolute error over all values of the split."""

    name = "error"
    higher_is_better = False

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds values and targets of one shape."""
        self.total += float((output - target).abs().sum(dtype=torch.float64))
        self.count += target.numel()

    def compute(self) -> float:
        """Mean absolute error, in the target's unit."""
        return self.total / self.count if self.count else float("nan")
