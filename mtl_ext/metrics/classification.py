"""Metrics of classes: of a whole image, of attributes, of pixels."""

import torch
from torch import Tensor

from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.metrics.base import Metric, check_classes, check_same_shape


class Accuracy(Metric):
    """Share of samples whose largest logit is the target class, in percent.

    Targets outside 0 .. C - 1 (the ignore label) do not count.
    """

    name = "acc %"
    higher_is_better = True

    def __init__(self) -> None:
        self.correct = 0
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, C, ...] and classes [B, ...]."""
        check_classes(self, output, target)
        valid = (target >= 0) & (target < output.shape[1])
        self.correct += int(((output.argmax(dim=1) == target) & valid).sum())
        self.count += int(valid.sum())

    def compute(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.correct / self.count if self.count else float("nan")


class PixelAccuracy(Accuracy):
    """Share of pixels whose largest logit is the target class, in percent, over all valid pixels of the split."""

    name = "pixel acc %"


class BinaryAccuracy(Metric):
    """Share of yes-or-no answers that are right, in percent; of several labels, each answer counts.

    Targets other than 0 and 1 (a missing label) do not count.
    """

    name = "acc %"
    higher_is_better = True

    def __init__(self) -> None:
        self.correct = 0
        self.count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits, above 0 for yes, and targets 0 or 1 of the same shape, for example [B, 1] or [B, labels]."""
        check_same_shape(self, output, target)
        valid = (target == 0) | (target == 1)
        self.correct += int((((output > 0) == (target == 1)) & valid).sum())
        self.count += int(valid.sum())

    def compute(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.correct / self.count if self.count else float("nan")


class MeanIoU(Metric):
    """Mean over classes of intersection over union, in percent, from one confusion matrix over the split.

    Pixels whose target lies outside 0 .. C - 1 (the ignore label) do not count.

    Args:
        num_classes: C.
        absent: a class that occurs neither in the targets nor in the predictions: ``"skip"`` leaves it out of the
            mean, ``"zero"`` counts it as IoU 0 (PASCAL-Context's published code), ``"nan"`` makes the mean NaN (MTAN).
        skip_background_images: leave out images whose valid pixels are all of class 0; the human parts of
            PASCAL-Context are measured so, with C = 7.

    Raises:
        ValueError: ``num_classes`` below 1, or another choice of ``absent``.
    """

    name = "mIoU %"
    higher_is_better = True

    def __init__(self, num_classes: int, *, absent: str = "skip", skip_background_images: bool = False) -> None:
        check_range("num_classes", num_classes, 1)
        check_choice("absent", absent, ("skip", "zero", "nan"))
        self.num_classes = num_classes
        self.absent = absent
        self.skip_background_images = skip_background_images
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds logits [B, C, H, W] and classes [B, H, W].

        Raises:
            ValueError: the shapes do not fit.
        """
        check_classes(self, output, target)
        if output.shape[1] != self.num_classes:
            raise ValueError(
                f"MeanIoU has logits of {output.shape[1]} classes, expected num_classes = {self.num_classes}"
            )
        valid = (target >= 0) & (target < self.num_classes)
        if self.skip_background_images:
            foreground = (valid & (target > 0)).flatten(1).any(1)
            valid &= foreground.view(-1, *[1] * (target.dim() - 1))
        pairs = target[valid].long() * self.num_classes + output.argmax(dim=1)[valid]
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        self.confusion += counts.view(self.num_classes, self.num_classes).cpu()

    def compute(self) -> float:
        """Mean IoU in percent."""
        if not self.confusion.any():
            return float("nan")
        intersection = self.confusion.diagonal().double()
        union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
        ratios = intersection / union
        if self.absent != "nan":
            ratios = ratios[union > 0] if self.absent == "skip" else ratios.nan_to_num(0.0)
        return 100.0 * float(ratios.mean())
