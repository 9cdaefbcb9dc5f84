"""Tasks with inputs of their own: one independent stream of batches per task."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mtl_ext.data.holdout import DivisibleSplit
from mtl_ext.data.task import Batch, Split


class OwnInputSplit:
    """K streams side by side: every batch holds, for each task, inputs and targets of that task alone.

    A pass is as long as the longest stream. With a generator, a shorter stream starts again as often as it takes, each
    time in a new order and with new augmentations. Without one (evaluation) every sample comes exactly once: the
    batches of a stream that has ended hold 0 samples.

    Args:
        splits: task -> its samples, whose targets have the task's name among their keys.

    Raises:
        ValueError: no task, or a task without samples.
    """

    def __init__(self, splits: Mapping[str, Split]) -> None:
        if not splits:
            raise ValueError("splits is empty, expected at least one task")
        for task, split in splits.items():
            if not len(split):
                raise ValueError(f"the split of task {task!r} has no samples, expected at least one")
        self.splits = dict(splits)

    def __len__(self) -> int:
        """Number of samples of the longest stream."""
        return max(len(split) for split in self.splits.values())

    def divide(self, share: float, generator: torch.Generator) -> tuple["OwnInputSplit", "OwnInputSplit"]:
        """Two splits without a common sample, every task's stream divided by itself.

        See :class:`mtl_ext.data.holdout.DivisibleSplit`.

        Raises:
            ValueError: the stream of a task cannot be divided, or one of its parts would be empty.
        """
        parts = {}
        for task, split in self.splits.items():
            if not isinstance(split, DivisibleSplit):
                raise ValueError(f"the split of task {task!r} ({type(split).__name__}) has no divide(share, generator)")
            parts[task] = split.divide(share, generator)
        return OwnInputSplit({k: rest for k, (rest, _) in parts.items()}), OwnInputSplit(
            {k: held for k, (_, held) in parts.items()}
        )

    def batches(self, batch_size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """One pass, see :meth:`mtl_ext.data.Split.batches`; `batch_size` counts the samples of each task.

        The batch that ends a round of a shorter stream may be smaller, as the last batch of any pass.
        """
        steps = -(-len(self) // batch_size)
        streams = {}
        for task, split in self.splits.items():
            length = -(-len(split) // batch_size)
            seeds = None
            if generator is not None:
                # One seed per round: a pass that starts late need not go through the rounds before it.
                seeds = torch.randint(2**62, (-(-steps // length),), generator=generator).tolist()
            streams[task] = _stream(split, batch_size, length, seeds, skip)
        return (_join({task: next(stream) for task, stream in streams.items()}) for _ in range(skip, steps))


def _stream(split: Split, batch_size: int, length: int, seeds: list[int] | None, skip: int) -> Iterator[Batch]:
    """Batches of one task without end, from batch `skip` on; `length` is the number of batches of a round."""
    if seeds is None:
        yield from split.batches(batch_size, skip=skip)
        empty = _first(split)
        while True:
            yield empty
    for seed in seeds[skip // length :]:
        yield from split.batches(batch_size, torch.Generator().manual_seed(seed), skip % length)
        skip = 0


def _first(split: Split) -> Batch:
    """A batch of the split's shapes with 0 samples."""
    batch = next(split.batches(1))
    if not isinstance(batch.inputs, Tensor):
        raise TypeError("the split of a task gives a mapping of inputs, expected one tensor")
    return Batch(batch.inputs[:0], {name: target[:0] for name, target in batch.targets.items()})


def _join(batches: Mapping[str, Batch]) -> Batch:
    inputs: dict[str, Tensor] = {}
    for task, batch in batches.items():
        if not isinstance(batch.inputs, Tensor):
            raise TypeError(f"the split of task {task!r} gives a mapping of inputs, expected one tensor")
        if task not in batch.targets:
            raise KeyError(f"the split of task {task!r} has no target of that name, only {', '.join(batch.targets)}")
        inputs[task] = batch.inputs
    return Batch(inputs, {task: batch.targets[task] for task, batch in batches.items()})
