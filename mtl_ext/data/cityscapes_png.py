"""Cityscapes as auto-lambda prepares it: 19 classes, 10 parts and disparity of 256 x 512 street scenes."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from mtl_ext.data.augment import ScaleCrop
from mtl_ext.data.dense_tasks import segmentation_task, value_task
from mtl_ext.data.extra_tasks import with_extra_tasks
from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.prepare import center
from mtl_ext.data.reading import Layout, read_image, read_pixels, same_size
from mtl_ext.data.task import MultiTaskData

CLASSES = 19
PARTS = 10
LAYOUT = Layout(
    "Cityscapes (png and tif)",
    """\
ROOT/{train,val}/image/{0, 1, ...}.png      colors; published: 2975 and 500 of 256 x 512
ROOT/{train,val}/seg/{0, 1, ...}.png        raw label ids
ROOT/{train,val}/depth/{0, 1, ...}.png      uint16 disparity, 256 times that of the 2048-pixel image, plus 1; 0 unknown
ROOT/{train,val}/part_seg/{0, 1, ...}.tif   panoptic-parts uids; ROOT/train/part_seg0.tif, ... is accepted too
All four of one number must show the same image: the preparing script walks the cities in the order of glob, which
may differ between runs, so prepare all four in one run.""",
)
# Raw ids of the classes 0 .. 18; all other ids have no label.
RAW_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
MAX_RAW_ID = 255
# Semantic id and part id -> part: torso, head, arms, legs of people; windows, wheels, lights, plate, chassis of cars.
PERSON_IDS, VEHICLE_IDS = (24, 25), (26, 27, 28)
PERSON_PARTS, VEHICLE_PARTS = {1: 1, 2: 2, 3: 3, 4: 4}, {1: 5, 2: 6, 3: 7, 4: 8, 5: 9}
# The stored disparities belong to images four times as wide.
DISPARITY_UNIT = 256 * 4
FIELDS = {"segmentation": Field(fill=-1), "parts": Field(fill=-1), "disparity": Field(fill=-1, power=1)}


def cityscapes_png(
    root: str,
    crop: tuple[int, int] = (256, 256),
    augment: bool = True,
    noise: bool = False,
    pseudo_labels: bool = False,
    reduction: str = "exact",
    workers: int = 0,
) -> MultiTaskData:
    """Cityscapes from a folder prepared as auto-lambda does it (also DGR, IAL and SAAL): three tasks.

    Differences from auto-lambda: ids that its map does not list (-1 of licence plates, 255) are road there and have no
    label here; where a crop with a scale enlarges invalid disparities, they stay invalid.

    Args:
        root: the folder with train/ and val/.
        crop: height and width of the training crops, at scale 1.
        augment: whether training samples are cropped and mirrored at random, by :class:`ScaleCrop`.
        noise: whether to add the task of :func:`with_noise`.
        pseudo_labels: whether to add the tasks of ROOT/pseudo, see :func:`with_pseudo_labels`.
        reduction: how errors are averaged over a split; published tables hold ``"batch_mean"`` (MTAN) and
            ``"sample_weighted"`` (auto-lambda), see :class:`mtl_ext.metrics.base.ErrorMean`.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32 in [-1, 1]; targets ``segmentation`` [H, W] int64 (19 classes, -1: no label),
        ``parts`` [H, W] int64 (10 classes, 0 is background) and ``disparity`` [1, H, W] pixels of the 512-pixel image
        (-1: no label). Test is val/ in full size, as published.

    Raises:
        FileNotFoundError: a folder or a file of the layout is missing.
        ValueError: an unknown reduction, or (while loading) a broken file, which the message names.
    """
    tasks = (
        segmentation_task("segmentation", CLASSES),
        segmentation_task("parts", PARTS),
        value_task("disparity", -1.0, reduction),
    )
    change = ScaleCrop((crop[0], crop[1]), scales=(1.0,)) if augment else None

    def split(name: str) -> FolderSplit:
        folder = Path(root) / name
        for part in ("seg", "depth"):
            LAYOUT.folder(folder / part)
        ids = LAYOUT.numbered(folder / "image", ".png")
        LAYOUT.file(*_part_files(folder, ids[0]))
        return FolderSplit(name, ids, partial(read_sample, folder), FIELDS, change, center, workers)

    return with_extra_tasks(MultiTaskData(tasks, split("train"), split("val")), root, noise, pseudo_labels)


def read_sample(folder: Path, name: str) -> Sample:
    """One sample as it lies on disk, colors in [0, 1], from the folder of its split."""
    image = read_image(folder / "image" / f"{name}.png") / 255.0
    targets = {
        "segmentation": torch.from_numpy(train_ids(read_pixels(folder / "seg" / f"{name}.png"))),
        "parts": torch.from_numpy(part_ids(read_pixels(LAYOUT.file(*_part_files(folder, name))))),
        "disparity": torch.from_numpy(disparity(read_pixels(folder / "depth" / f"{name}.png")))[None],
    }
    same_size(image, targets, f"sample {name} of {folder}")
    return image, targets


def train_ids(raw: np.ndarray) -> np.ndarray:
    """Classes 0 .. 18 from raw label ids of any shape, -1 for ids that have no class."""
    table = np.full(MAX_RAW_ID + 1, -1)
    table[list(RAW_IDS)] = np.arange(CLASSES)
    known = (raw >= 0) & (raw <= MAX_RAW_ID)
    classes: np.ndarray = np.where(known, table[np.where(known, raw, 0)], -1)
    return classes


def part_ids(uids: np.ndarray) -> np.ndarray:
    """Parts 0 .. 9 from the uids of panoptic parts: a semantic id, then three digits of instance, then two of part.

    Uids without an instance (two digits) or without a part (five digits) are background, as are parts of other things.
    """
    parts = np.zeros(uids.shape, dtype=np.int64)
    semantic = np.where(uids >= 100_000, uids // 100_000, -1)
    for things, mapping in ((PERSON_IDS, PERSON_PARTS), (VEHICLE_IDS, VEHICLE_PARTS)):
        for part, number in mapping.items():
            parts[np.isin(semantic, things) & (uids % 100 == part)] = number
    return parts


def disparity(stored: np.ndarray) -> np.ndarray:
    """Pixels of the 512-pixel image, float32, from stored disparities; -1 where unknown."""
    return np.where(stored == 0, -1.0, (stored - 1) / DISPARITY_UNIT).astype(np.float32)


def _part_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Where parts may lie: auto-lambda's script leaves out the slash for its training images."""
    return folder / "part_seg" / f"{name}.tif", folder / f"part_seg{name}.tif"
