"""Data sets: one loader per format."""

from collections.abc import Callable

from mtl_ext.data.celeba import celeba
from mtl_ext.data.cifar100 import cifar100
from mtl_ext.data.cityscapes import cityscapes
from mtl_ext.data.cityscapes_png import cityscapes_png
from mtl_ext.data.class_folder import class_folder
from mtl_ext.data.faces import faces
from mtl_ext.data.fields import Field
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.glyphs import glyphs
from mtl_ext.data.holdout import DivisibleSplit, hold_out
from mtl_ext.data.metagraspnet import metagraspnet
from mtl_ext.data.multi_mnist import multi_mnist
from mtl_ext.data.multi_mnist_files import multi_mnist_files
from mtl_ext.data.nyud_mt import nyud_mt
from mtl_ext.data.nyuv2 import nyuv2
from mtl_ext.data.pascal_context import pascal_context
from mtl_ext.data.qm9 import qm9
from mtl_ext.data.scenes.dataset import scenes
from mtl_ext.data.streams import OwnInputSplit
from mtl_ext.data.task import Batch, Inputs, MemorySplit, MultiTaskData, Split, Task
from mtl_ext.data.utkface import utkface

DATASETS: dict[str, Callable[..., MultiTaskData]] = {
    "multi_mnist": multi_mnist,
    "scenes": scenes,
    "nyuv2": nyuv2,
    "cityscapes": cityscapes,
    "cityscapes_png": cityscapes_png,
    "pascal_context": pascal_context,
    "nyud_mt": nyud_mt,
    "metagraspnet": metagraspnet,
    "faces": faces,
    "glyphs": glyphs,
    "multi_mnist_files": multi_mnist_files,
    "celeba": celeba,
    "utkface": utkface,
    "cifar100": cifar100,
    "qm9": qm9,
    "class_folder": class_folder,
}

__all__ = [
    "DATASETS",
    "Batch",
    "DivisibleSplit",
    "Field",
    "FolderSplit",
    "Inputs",
    "MemorySplit",
    "MultiTaskData",
    "OwnInputSplit",
    "Split",
    "Task",
    "celeba",
    "cifar100",
    "cityscapes",
    "cityscapes_png",
    "class_folder",
    "faces",
    "glyphs",
    "hold_out",
    "metagraspnet",
    "multi_mnist",
    "multi_mnist_files",
    "nyud_mt",
    "nyuv2",
    "pascal_context",
    "qm9",
    "scenes",
    "utkface",
]
