"""Data sets: one loader per format."""

from collections.abc import Callable

from mtl_ext.data.cityscapes import cityscapes
from mtl_ext.data.cityscapes_png import cityscapes_png
from mtl_ext.data.fields import Field
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.metagraspnet import metagraspnet
from mtl_ext.data.multi_mnist import multi_mnist
from mtl_ext.data.nyud_mt import nyud_mt
from mtl_ext.data.nyuv2 import nyuv2
from mtl_ext.data.pascal_context import pascal_context
from mtl_ext.data.scenes.dataset import scenes
from mtl_ext.data.task import Batch, Inputs, MemorySplit, MultiTaskData, Split, Task

DATASETS: dict[str, Callable[..., MultiTaskData]] = {
    "multi_mnist": multi_mnist,
    "scenes": scenes,
    "nyuv2": nyuv2,
    "cityscapes": cityscapes,
    "cityscapes_png": cityscapes_png,
    "pascal_context": pascal_context,
    "nyud_mt": nyud_mt,
    "metagraspnet": metagraspnet,
}

__all__ = [
    "DATASETS",
    "Batch",
    "Field",
    "FolderSplit",
    "Inputs",
    "MemorySplit",
    "MultiTaskData",
    "Split",
    "Task",
    "cityscapes",
    "cityscapes_png",
    "metagraspnet",
    "multi_mnist",
    "nyud_mt",
    "nyuv2",
    "pascal_context",
    "scenes",
]
