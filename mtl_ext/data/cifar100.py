"""Multi-CIFAR100: the 20 superclasses of CIFAR-100 as 20 tasks with inputs of their own, five classes each."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.images import ImageSplit
from mtl_ext.data.streams import OwnInputSplit
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.metrics import Accuracy

SIZE = 32
MEAN = (0.5071, 0.4867, 0.4408)
STD = (0.2675, 0.2565, 0.2761)
FOLDER = "cifar-100-python"
LAYOUT = f"{FOLDER}/{{train,test}}, the two pickles of CIFAR-100's Python version"

# Superclass -> its classes, both in the order of the numbers in the files; a class's number is its rank among the
# 100 names in alphabetical order (https://www.cs.toronto.edu/~kriz/cifar.html).
DOMAINS = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
FINE_NAMES = tuple(sorted(name for names in DOMAINS.values() for name in names))
# [20, 5]: the numbers of each superclass's classes, ascending. A class's label within its task is its column.
FINE_OF = torch.tensor([[FINE_NAMES.index(name) for name in names] for names in DOMAINS.values()])


def cifar100(root: str) -> MultiTaskData:
    """Reads the user's copy of CIFAR-100 as the 20 tasks of Multi-CIFAR100 (Rosenbaum et al. 2018).

    Training images are shifted by up to 4 pixels (a random crop of the image padded by 4) and mirrored, as in Auto-λ's
    protocol. Every task has its own stream of images (:class:`mtl_ext.data.streams.OwnInputSplit`).

    Args:
        root: the folder that holds ``cifar-100-python``, or that folder itself.

    Returns:
        20 tasks named after the superclasses, in their order, with 5 classes each: the superclass's classes by
        ascending number. Inputs, per task, [B, 3, 32, 32] float32, normalised by CIFAR-100's mean and standard
        deviation; 2500 training and 500 test images per task.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file that is not what it should be.
    """
    folder = Path(root) / FOLDER if (Path(root) / FOLDER).is_dir() else Path(root)
    train, test = (read_file(folder / name) for name in ("train", "test"))
    tasks = tuple(Task(name, "classes", 5, functional.cross_entropy, (Accuracy,)) for name in DOMAINS)
    return MultiTaskData(tasks, _split(*train, augment=True), _split(*test, augment=False))


def read_file(path: Path) -> tuple[Tensor, Tensor]:
    """The images [M, 3, 32, 32] uint8 and the class numbers [M] int64 of one file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, holds anything but plain data, or lacks a part.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; the layout is root/{LAYOUT}")
    try:
        with path.open("rb") as file:
            content = RestrictedUnpickler(file, encoding="latin1").load()
        data, fine = content["data"].value, np.array(content["fine_labels"])
    # A broken pickle can raise nearly anything; none of it ran code.
    except Exception as error:
        raise ValueError(f"{path} is not a file of CIFAR-100: {error}; the layout is root/{LAYOUT}") from error
    if fine.dtype.kind != "i" or fine.ndim != 1 or fine.min() < 0 or fine.max() > 99:
        raise ValueError(f"fine_labels in {path} are not a list of integers 0 .. 99")
    if data.shape != (len(fine), 3 * SIZE**2):
        raise ValueError(f"data in {path} has shape {list(data.shape)}, expected [{len(fine)}, {3 * SIZE**2}]")
    images = torch.from_numpy(data.reshape(-1, 3, SIZE, SIZE).copy())
    return images, torch.from_numpy(fine.astype(np.int64))


class RestrictedUnpickler(pickle.Unpickler):
    """Reads pickles of dicts, lists, numbers, strings, bytes and arrays of uint8, and refuses everything else.

    A pickle can name any function and have it called; this one finds only stand-ins for what arrays are made of.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name.

        Raises:
            pickle.UnpicklingError: anything else.
        """
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            # numpy moved its core; old files name the old place.
            ("numpy.core.multiarray", "_reconstruct"): StoredArray,
            ("numpy._core.multiarray", "_reconstruct"): StoredArray,
            ("numpy", "ndarray"): StoredArray,
            ("numpy", "dtype"): StoredDtype,
            ("_codecs", "encode"): _latin1_bytes,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, expected dicts, lists and numpy arrays only")
        return allowed[module, name]


class StoredDtype:
    """The element type of a pickled array: uint8, or an error."""

    def __init__(self, code: str, *options: object) -> None:
        if code != "u1":
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}, expected 'u1'")

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, which single bytes do not have."""


class StoredArray:
    """A pickled array: made empty, then filled."""

    def __init__(self, *empty: object) -> None:
        self.value = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], StoredDtype, bool, bytes | str]) -> None:
        """Version, shape, type, whether columns come first, and the bytes (a string in files of Python 2)."""
        _, shape, _, by_columns, raw = state
        content = raw.encode("latin1") if isinstance(raw, str) else raw
        self.value = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if by_columns else "C")


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    return text.encode("latin1")


def _split(images: Tensor, fine: Tensor, augment: bool) -> OwnInputSplit:
    splits = {}
    for name, numbers in zip(DOMAINS, FINE_OF, strict=True):
        index = torch.isin(fine, numbers).nonzero()[:, 0]
        labels = torch.searchsorted(numbers, fine[index])
        splits[name] = ImageSplit(images[index], {name: labels}, MEAN, STD, shift=4 if augment else 0, flip=augment)
    return OwnInputSplit(splits)
