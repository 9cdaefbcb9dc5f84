"""Where the data of the outer problem come from."""

import math
from collections.abc import Iterator

import torch

from mtl_ext.data import Batch, Split

RESHUFFLED = "train_reshuffle"
HELD_OUT = "holdout:"


def meta_share(meta_data: str) -> float:
    """What a recipe's ``meta_data`` takes from the training split, as a share in [0, 1).

    ``train_reshuffle`` (the published code of Auto-lambda, IAL): 0, the meta batches are the training samples again, in
    an order of their own. ``holdout:SHARE`` (SAAL: ``holdout:0.1``): samples that are not trained on.

    Raises:
        ValueError: it is neither.
    """
    if meta_data == RESHUFFLED:
        return 0.0
    try:
        share = float(meta_data.removeprefix(HELD_OUT)) if meta_data.startswith(HELD_OUT) else math.nan
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ValueError(f"meta_data is {meta_data!r}, expected {RESHUFFLED!r} or 'holdout:SHARE', SHARE in (0, 1)")
    return share


def meta_batches(split: Split, batch_size: int, generator: torch.Generator, skip: int = 0) -> Iterator[Batch]:
    """Batches without end: one shuffled pass over the samples after the other.

    Args:
        split: the training split, or what was held out.
        batch_size: samples per batch.
        generator: of the passes' order and augmentation; not the one that orders the training batches.
        skip: batches to leave out at the start, without loading them; the rest is as it would be after them, for a
            generator in the state that it had at the start.

    Raises:
        ValueError: the split is empty.
    """
    per_pass = -(-len(split) // batch_size)
    if per_pass == 0:
        raise ValueError("split is empty, expected at least one sample for the meta batches")
    for _ in range(skip // per_pass):
        split.batches(batch_size, generator, per_pass)  # draws what that pass would have drawn
    skip %= per_pass
    while True:
        yield from split.batches(batch_size, generator, skip)
        skip = 0
