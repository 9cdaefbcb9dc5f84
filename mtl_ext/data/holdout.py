"""Validation data out of a training split."""

from typing import Protocol, runtime_checkable

import torch

from mtl_ext.data.task import Split
from mtl_ext.methods.base import check_range


@runtime_checkable
class DivisibleSplit(Split, Protocol):
    """A split that can be told apart by samples."""

    def divide(self, share: float, generator: torch.Generator) -> tuple[Split, Split]:
        """Two splits without a common sample: the rest, and a random share of the samples.

        Args:
            share: of the samples, above 0 and below 1.
            generator: of the choice.

        Raises:
            ValueError: one of the two would be empty.
        """


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """What is left of a training split, and the share that is held out of it, the same for every call with a seed.

    Raises:
        ValueError: the split cannot be divided, a share outside (0, 1), or one that leaves a part without samples.
    """
    check_range("holdout", share, 0.0, 1.0, open_low=True, open_high=True)
    if not isinstance(split, DivisibleSplit):
        raise ValueError(f"{type(split).__name__} cannot hold samples out: it has no divide(share, generator)")
    return split.divide(share, torch.Generator().manual_seed(seed))
