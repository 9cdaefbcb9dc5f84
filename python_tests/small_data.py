"""A tiny data set of three tasks, one of each kind, for the tests of models and trainers."""

from functools import partial

import torch
from torch.nn import functional

from mtl_ext.data import MemorySplit, MultiTaskData, Task
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
