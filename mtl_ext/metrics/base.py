"""What a metric is, and the ways in which the field averages errors over a split."""

from abc import ABC, abstractmethod

from torch import Tensor

from mtl_ext.methods.base import check_choice


class Metric(ABC):
    """A number that summarises a task's outputs over a split.

    Attributes:
        name: what tables call it.
        higher_is_better: the direction, for Delta_MTL.
    """

    name: str
    higher_is_better: bool

    @abstractmethod
    def update(self, output: Tensor, target: Tensor) -> None:
        """Adds one batch.

        Raises:
            ValueError: the shapes do not fit.
        """

    @abstractmethod
    def compute(self) -> float:
        """The value over everything added so far; NaN when nothing was."""


class ErrorMean:
    """The mean of errors over a split, or one of the approximations by batch that published tables hold.

    Args:
        reduction: ``"exact"``: over all valid values of the split, the same for every batch size (LibMTL, which weighs
            the batches' means by their valid values). ``"batch_mean"``: the plain mean of the batches' means (MTAN).
            ``"sample_weighted"``: the batches' means, weighted by their numbers of samples (Auto-Lambda).
            A batch without a valid value is left out; in the published code it makes NaN.

    Raises:
        ValueError: another reduction.
    """

    def __init__(self, reduction: str = "exact") -> None:
        check_choice("reduction", reduction, ("exact", "batch_mean", "sample_weighted"))
        self.reduction = reduction
        self.total = 0.0
        self.weight = 0

    def add(self, errors: Tensor, num_samples: int) -> None:
        """Adds a batch: the errors of its valid values, of any shape, and its number of samples."""
        if errors.numel() > 0:
            self.add_batch(float(errors.double().mean()), errors.numel(), num_samples)

    def add_batch(self, mean: float, num_values: int, num_samples: int) -> None:
        """Adds a batch by its mean."""
        weight = {"exact": num_values, "batch_mean": 1, "sample_weighted": num_samples}[self.reduction]
        self.total += mean * weight
        self.weight += weight

    def compute(self) -> float:
        """The mean; NaN when nothing was added."""
        return self.total / self.weight if self.weight else float("nan")


def check_same_shape(metric: Metric, output: Tensor, target: Tensor) -> None:
    """Checks values against targets; broadcasting would give a wrong number.

    Raises:
        ValueError: the shapes differ.
    """
    if output.shape != target.shape:
        name, found = type(metric).__name__, f"output {list(output.shape)}, target {list(target.shape)}"
        raise ValueError(f"{name} has {found}, expected the same shape")


def check_classes(metric: Metric, output: Tensor, target: Tensor) -> None:
    """Checks logits [B, C, ...] against classes [B, ...].

    Raises:
        ValueError: the shapes do not fit.
    """
    if output.dim() < 2 or output.shape[:1] + output.shape[2:] != target.shape:
        name, found = type(metric).__name__, f"output {list(output.shape)}, target {list(target.shape)}"
        raise ValueError(f"{name} has {found}, expected logits [B, C, ...] and classes [B, ...]")
