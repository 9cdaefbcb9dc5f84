"""Metrics of surface normals: the angle between the predicted and the true direction."""

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.metrics.base import ErrorMean, Metric, check_same_shape

# Degrees per bin of the median's histogram.
BIN = 0.001
BINS = round(180 / BIN)


class AngleMetric(Metric):
    """Base of the metrics of angles, in degrees, at the pixels whose normal is known.

    Outputs and targets are brought to unit length; an output of length 0 counts as 90 degrees. A target of length 0 or
    above 2 (NYUv2's and PASCAL's marks, 0 and 255) is unknown.

    Args:
        reduction: how the mean over the split is taken, see :class:`~mtl_ext.metrics.base.ErrorMean`.
        mask: ``"norm"``, or ``"sum"``: a normal whose components add up to 0 also counts as unknown, as in the
            published code for NYUv2.

    Raises:
        ValueError: another reduction or mask.
    """

    def __init__(self, *, reduction: str = "exact", mask: str = "norm") -> None:
        check_choice("mask", mask, ("norm", "sum"))
        self.mask = mask
        self.mean = ErrorMean(reduction)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds normals [B, 3, H, W] and true normals of the same shape.

        Raises:
            ValueError: another shape.
        """
        check_same_shape(self, output, target)
        if target.dim() < 2 or target.shape[1] != 3:
            raise ValueError(f"{type(self).__name__} has shape {list(target.shape)}, expected [B, 3, ...]")
        output, target = output.double(), target.double()
        length = target.norm(dim=1)
        valid = (length > 0) & (length <= 2)
        if self.mask == "sum":
            valid &= target.sum(1) != 0
        cosine = (functional.normalize(output, dim=1) * functional.normalize(target, dim=1)).sum(1)
        self.add(cosine[valid].clamp(-1.0, 1.0).acos().rad2deg(), len(target))

    def add(self, angles: Tensor, num_samples: int) -> None:
        """Adds the angles [M] float64, in degrees, of a batch of `num_samples`."""
        raise NotImplementedError

    def compute(self) -> float:
        """The value over the split."""
        return self.mean.compute()


class MeanAngle(AngleMetric):
    """Mean angle in degrees.

    Args:
        reduction: see `AngleMetric`.
        mask: see `AngleMetric`.
    """

    name = "mean °"
    higher_is_better = False

    def add(self, angles: Tensor, num_samples: int) -> None:
        """Adds the angles."""
        self.mean.add(angles, num_samples)


class WithinAngle(AngleMetric):
    """Share of pixels whose angle is below a threshold, in percent.

    Args:
        threshold: in degrees; 11.25, 22.5 and 30 are usual.
        reduction: see `AngleMetric`.
        mask: see `AngleMetric`.

    Raises:
        ValueError: a threshold outside (0, 180].
    """

    higher_is_better = True

    def __init__(self, threshold: float, *, reduction: str = "exact", mask: str = "norm") -> None:
        super().__init__(reduction=reduction, mask=mask)
        check_range("threshold", threshold, 0.0, 180.0, open_low=True)
        self.threshold = threshold
        self.name = f"<{threshold:g}° %"

    def add(self, angles: Tensor, num_samples: int) -> None:
        """Adds a 100 for each angle below the threshold and a 0 for each other; NaN stays NaN."""
        within = torch.where(angles.isnan(), angles, 100.0 * (angles < self.threshold))
        self.mean.add(within, num_samples)


class MedianAngle(AngleMetric):
    """Median angle in degrees.

    The median over the split comes from a histogram, in constant memory: at most 0.0005 degrees from the exact one
    (of an even number of angles, the mean of the two in the middle).

    Args:
        reduction: ``"exact"``, or the mean of the batches' own medians (the lower of the two in the middle):
            ``"batch_mean"`` (MTAN) or ``"sample_weighted"`` (Auto-Lambda). LibMTL's number is the exact one.
        mask: see `AngleMetric`.
    """

    name = "median °"
    higher_is_better = False

    def __init__(self, *, reduction: str = "exact", mask: str = "norm") -> None:
        super().__init__(reduction=reduction, mask=mask)
        self.histogram = torch.zeros(BINS, dtype=torch.int64)
        self.found_nan = False

    def add(self, angles: Tensor, num_samples: int) -> None:
        """Adds the angles to the histogram, or their median."""
        if angles.numel() == 0:
            return
        if self.mean.reduction != "exact":
            self.mean.add_batch(float(angles.median()), angles.numel(), num_samples)
            return
        self.found_nan |= bool(angles.isnan().any())
        bins = (angles.nan_to_num() / BIN).long().clamp_max(BINS - 1)
        self.histogram += torch.bincount(bins, minlength=BINS).cpu()

    def compute(self) -> float:
        """The median in degrees."""
        count = int(self.histogram.sum())
        if self.mean.reduction != "exact" or count == 0 or self.found_nan:
            return float("nan") if self.found_nan else super().compute()
        ranks = torch.tensor([(count - 1) // 2 + 1, count // 2 + 1])
        middle = torch.searchsorted(self.histogram.cumsum(0), ranks)
        return float((middle.double() + 0.5).mean() * BIN)
