"""Data sets: one loader per format."""

from collections.abc import Callable

from mtl_ext.data.multi_mnist import multi_mnist
from mtl_ext.data.scenes.dataset import scenes
from mtl_ext.data.task import Batch, Inputs, MemorySplit, MultiTaskData, Split, Task

DATASETS: dict[str, Callable[..., MultiTaskData]] = {"multi_mnist": multi_mnist, "scenes": scenes}

__all__ = ["DATASETS", "Batch", "Inputs", "MemorySplit", "MultiTaskData", "Split", "Task", "multi_mnist", "scenes"]
