"""Data sets: one loader per format."""

from collections.abc import Callable

from mtl_ext.data.celeba import celeba
from mtl_ext.data.cifar100 import cifar100
from mtl_ext.data.class_folder import class_folder
from mtl_ext.data.faces import faces
from mtl_ext.data.glyphs import glyphs
from mtl_ext.data.multi_mnist import multi_mnist
from mtl_ext.data.multi_mnist_files import multi_mnist_files
from mtl_ext.data.qm9 import qm9
from mtl_ext.data.scenes.dataset import scenes
from mtl_ext.data.streams import OwnInputSplit
from mtl_ext.data.task import Batch, Inputs, MemorySplit, MultiTaskData, Split, Task
from mtl_ext.data.utkface import utkface

DATASETS: dict[str, Callable[..., MultiTaskData]] = {
    "multi_mnist": multi_mnist,
    "scenes": scenes,
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
    "Inputs",
    "MemorySplit",
    "MultiTaskData",
    "OwnInputSplit",
    "Split",
    "Task",
    "celeba",
    "cifar100",
    "class_folder",
    "faces",
    "glyphs",
    "multi_mnist",
    "multi_mnist_files",
    "qm9",
    "scenes",
    "utkface",
]
