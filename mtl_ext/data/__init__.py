"""Data sets: one loader per format."""

from mtl_ext.data.multi_mnist import multi_mnist
from mtl_ext.data.task import Batch, Inputs, MemorySplit, MultiTaskData, Split, Task

DATASETS = {"multi_mnist": multi_mnist}

__all__ = ["DATASETS", "Batch", "Inputs", "MemorySplit", "MultiTaskData", "Split", "Task", "multi_mnist"]
