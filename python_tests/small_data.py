"""Tiny data sets for the tests of models and trainers: three tasks of one input, and two with inputs of their own."""

from functools import partial

import torch
from torch.nn import functional

from mtl_ext.data import Batch, MemorySplit, MultiTaskData, Task
from mtl_ext.metrics import AbsoluteError, Accuracy, MeanIoU

SIZE = 8
TASKS = (
    Task("brightest", "classes", 4, functional.cross_entropy, (Accuracy,)),
    Task("bright", "pixels", 2, functional.cross_entropy, (partial(MeanIoU, 2),)),
    Task("mean", "values", 1, functional.mse_loss, (AbsoluteError,)),
)


def make_split(count: int, seed: int) -> MemorySplit:
    """Images whose brightest quadrant, bright pixels and mean brightness are to be told."""
    generator = torch.Generator().manual_seed(seed)
    quadrant = torch.randint(4, (count,), generator=generator)
    inputs = torch.rand(count, 1, SIZE, SIZE, generator=generator)
    for image, q in zip(inputs, quadrant.tolist(), strict=True):
        row, column = q // 2 * 4, q % 2 * 4
        image[0, row : row + 4, column : column + 4] += 0.5
    mean = inputs.mean(dim=(1, 2, 3))[:, None]
    targets = {"brightest": quadrant, "bright": (inputs[:, 0] > 0.7).long(), "mean": 10 * (mean - 0.6)}
    return MemorySplit(inputs, targets)


def make_data(count: int = 96) -> MultiTaskData:
    """Training and test split of one kind."""
    return MultiTaskData(TASKS, make_split(count, 0), make_split(40, 1))


OWN_TASKS = (TASKS[0], TASKS[2])


class OwnSplit:
    """Streams of different lengths side by side; with a generator a shorter one starts again."""

    def __init__(self, splits):
        self.splits = splits

    def __len__(self):
        return max(map(len, self.splits.values()))

    def batches(self, batch_size, generator=None, skip=0):
        orders = {}
        for name, split in self.splits.items():
            rounds = 1 if generator is None else -(-len(self) // len(split))
            draw = [torch.arange(len(split)) if generator is None else torch.randperm(len(split), generator=generator)]
            orders[name] = torch.cat(draw * rounds)
        for start in range(skip * batch_size, len(self), batch_size):
            parts = {
                name: split.batch(orders[name][start : min(start + batch_size, len(self))])
                for name, split in self.splits.items()
            }
            inputs = {name: part.inputs for name, part in parts.items()}
            yield Batch(inputs, {name: part.targets[name] for name, part in parts.items()})


def make_own_data():
    """Two tasks, each with images of its own."""

    def split(first, second, seed):
        counts = zip(OWN_TASKS, (first, second), strict=True)
        return OwnSplit({task.name: make_split(count, seed + k) for k, (task, count) in enumerate(counts)})

    return MultiTaskData(OWN_TASKS, split(96, 60, 0), split(40, 25, 10))
