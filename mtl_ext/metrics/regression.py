"""Metrics of values: depth, disparity, and numbers per sample."""

from math import sqrt

from torch import Tensor

from mtl_ext.metrics.base import ErrorMean, Metric, check_same_shape


class ValueMetric(Metric):
    """Base of the metrics that compare values with targets of the same shape, where the targets are valid.

    Args:
        invalid: the target that marks a missing value: 0 for NYUv2's depth and Cityscapes' inverse depth in the MTAN
            layout, -1 for Cityscapes' disparity in the Auto-Lambda layout; None where every value counts. NaN and
            infinite targets never count.
        reduction: how the mean over the split is taken, see :class:`~mtl_ext.metrics.base.ErrorMean`.
    """

    higher_is_better = False

    def __init__(self, *, invalid: float | None = None, reduction: str = "exact") -> None:
        self.invalid = invalid
        self.mean = ErrorMean(reduction)

    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds values and targets of one shape, [B, ...]."""
        check_same_shape(self, output, target)
        valid = target.isfinite()
        if self.invalid is not None:
            valid &= target != self.invalid
        self.mean.add(self.errors(output[valid].double(), target[valid].double()), len(target))

    def errors(self, output: Tensor, target: Tensor) -> Tensor:
        """The errors whose mean is taken, from values and targets [M] float64 of the valid ones."""
        raise NotImplementedError

    def compute(self) -> float:
        """The error over the split."""
        return self.mean.compute()


class AbsoluteError(ValueMetric):
    """Mean absolute error, in the target's unit.

    Args:
        invalid: the target that marks a missing value, see `ValueMetric`.
        reduction: see `ValueMetric`.
    """

    name = "abs err"

    def errors(self, output: Tensor, target: Tensor) -> Tensor:
        """Absolute differences."""
        return (output - target).abs()


class RelativeError(ValueMetric):
    """Mean of ``|output - target| / |target|``, a fraction; a target of 0 has no relative error and does not count.

    Args:
        invalid: the target that marks a missing value, see `ValueMetric`.
        reduction: see `ValueMetric`.
    """

    name = "rel err"

    def errors(self, output: Tensor, target: Tensor) -> Tensor:
        """Relative differences."""
        kept = target != 0
        return ((output - target).abs() / target.abs())[kept]


class RootMeanSquareError(ValueMetric):
    """Root of the mean squared error, in the target's unit; the root is taken once, over the whole split.

    Args:
        invalid: the target that marks a missing value, see `ValueMetric`.
    """

    name = "RMSE"

    def __init__(self, *, invalid: float | None = None) -> None:
        super().__init__(invalid=invalid)

    def errors(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared differences."""
        return (output - target).square()

    def compute(self) -> float:
        """The root of their mean."""
        return sqrt(super().compute())
