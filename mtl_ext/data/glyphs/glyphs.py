"""The glyphs in memory, for quick studies."""

import numpy as np
import torch
from torch.nn import functional

from mtl_ext.data.cache import cached_arrays
from mtl_ext.data.glyphs.glyph import CLASSES, GLYPHS, SIZE, VERSION, Glyph
from mtl_ext.data.images import ImageSplit
from mtl_ext.data.streams import OwnInputSplit
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.metrics import Accuracy


def glyphs(train_size: int = 200, test_size: int = 100, seed: int = 0) -> MultiTaskData:
    """Draws the glyphs, or takes them from the cache.

    The images are kept in :func:`mtl_ext.files.cache_folder`, one file for each choice of arguments.

    Args:
        train_size: training images of each domain, at least 5.
        test_size: test images of each domain, at least 5.
        seed: of the fonts, positions, slants, greys and noise.

    Returns:
        20 tasks of 5 classes, named after the domains in :data:`mtl_ext.data.glyphs.GLYPHS`. Inputs, per task,
        [B, 1, 36, 36] float32 in [0, 1]; classes are equally frequent, up to one image.

    Raises:
        ImportError: the images are not cached, and Pillow or matplotlib is not installed.
        ValueError: a size below 5.
    """
    for name, size in (("train_size", train_size), ("test_size", test_size)):
        if size < CLASSES:
            raise ValueError(f"{name} is {size}, expected at least {CLASSES}")
    name = f"glyphs{VERSION}-{train_size}-{test_size}-{seed}"
    images = cached_arrays(name, lambda: draw_splits(train_size, test_size, seed))
    tasks = tuple(Task(name, "classes", CLASSES, functional.cross_entropy, (Accuracy,)) for name in GLYPHS)
    return MultiTaskData(tasks, _split(images["train"]), _split(images["test"]))


def draw_splits(train_size: int, test_size: int, seed: int) -> dict[str, np.ndarray]:
    """Images [20, train_size or test_size, 36, 36] uint8 of ``train`` and ``test``; image i shows glyph i mod 5."""
    splits = {}
    for split, count in (("train", train_size), ("test", test_size)):
        drawn = [Glyph(seed, index, SIZE).draw(split) for index in range(count * len(GLYPHS))]
        splits[split] = np.stack(drawn).reshape(count, len(GLYPHS), SIZE, SIZE).swapaxes(0, 1)
    return splits


def _split(images: np.ndarray) -> OwnInputSplit:
    labels = torch.arange(images.shape[1]) % CLASSES
    return OwnInputSplit(
        {name: ImageSplit(torch.from_numpy(images[k][:, None]), {name: labels}) for k, name in enumerate(GLYPHS)}
    )
