"""Images in one folder per class, such as ImageNet: a single task."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.images import mirror_half, resize_smoothly
from mtl_ext.data.prepare import standardize
from mtl_ext.data.reading import Layout, read_image
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.metrics import Accuracy

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LAYOUT = Layout(
    "class folders",
    """\
root/train/[class]/*.jpg      one folder per class, the same classes in train and val; .jpeg, .png, .bmp, .webp too
root/val/[class]/*.jpg""",
)
# The share of the image's area that a training crop covers, and its ratio of width to height (Szegedy et al. 2015).
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


def class_folder(root: str, size: int = 224, workers: int = 0) -> MultiTaskData:
    """Reads images whose folder is their class, with the protocol that ImageNet's published numbers use.

    In training, a random part of 8 to 100 % of the image's area with a ratio of width to height of 3/4 to 4/3 is
    resized to size x size and mirrored with probability 0.5. Otherwise the shorter side is resized to size * 256 / 224
    and the centre is taken. Colors are standardised by ImageNet's mean and standard deviation.

    Args:
        root: the folder that holds ``train`` and ``val``, each with one folder per class.
        size: height and width of the inputs.
        workers: threads that load images ahead.

    Returns:
        One task ``class``, whose classes are the folders in alphabetical order; inputs [B, 3, size, size] float32.
        The images in ``val`` are the test split.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: the splits have different classes, or an image is broken.
    """
    classes = class_names(Path(root) / "train")
    found = class_names(Path(root) / "val")
    if found != classes:
        only = sorted(set(classes) ^ set(found))
        raise ValueError(f"{root}: train and val have different classes; only one of them has {', '.join(only)}")
    label_of = {name: torch.tensor(label) for label, name in enumerate(classes)}

    def split(part: str) -> FolderSplit:
        folder = Path(root) / part
        paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise LAYOUT.missing(f"{folder} holds no images")

        def load(name: str) -> Sample:
            return read_image(folder / name), {"class": label_of[Path(name).parent.name]}

        def prepare(sample: Sample, fields: Mapping[str, Field]) -> Sample:
            image, targets = sample
            return standardize(image if image.shape[-2:] == (size, size) else middle(image, size)), targets

        def augment(sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
            image, targets = sample
            return mirror_half((random_part(image, size, generator), targets), fields, generator)

        ids = [path.relative_to(folder).as_posix() for path in paths]
        return FolderSplit(
            part, ids, load, augment=augment if part == "train" else None, prepare=prepare, workers=workers
        )

    task = Task("class", "classes", len(classes), functional.cross_entropy, (Accuracy,))
    return MultiTaskData((task,), split("train"), split("val"))


def class_names(folder: Path) -> list[str]:
    """The sorted names of the folders in a split's folder.

    Raises:
        FileNotFoundError: no such folder, or none in it.
    """
    names = sorted(path.name for path in LAYOUT.folder(folder).iterdir() if path.is_dir())
    if not names:
        raise LAYOUT.missing(f"{folder} holds no folders of classes")
    return names


def random_part(image: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random part of an image [C, H, W], resized to [C, size, size].

    Area and ratio are drawn until the part fits, at most ten times; then the largest part in the middle whose ratio is
    allowed is taken.
    """
    height, width = image.shape[-2:]
    draws = torch.rand(TRIES, 4, generator=generator, dtype=torch.float64).tolist()
    for area_draw, ratio_draw, x_draw, y_draw in draws:
        area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area_draw)
        ratio = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio_draw
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(x_draw * (width - w + 1)), int(y_draw * (height - h + 1))
            return resize_smoothly(image[..., top : top + h, left : left + w], (size, size))
    h = min(height, round(width / RATIO[0]))
    w = min(width, round(height * RATIO[1]))
    top, left = (height - h) // 2, (width - w) // 2
    return resize_smoothly(image[..., top : top + h, left : left + w], (size, size))


def middle(image: Tensor, size: int) -> Tensor:
    """The middle [C, size, size] of an image whose shorter side is resized to size * 256 / 224."""
    height, width = image.shape[-2:]
    scale = round(size * 256 / 224) / min(height, width)
    h, w = round(height * scale), round(width * scale)
    top, left = (h - size) // 2, (w - size) // 2
    return resize_smoothly(image, (h, w))[..., top : top + size, left : left + size]
