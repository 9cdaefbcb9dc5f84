"""NYUD_MT: NYUv2 in the layout of ASTMT's authors, 40 classes, depth, normals and edges of 480 x 640 images."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mtl_ext.data.augment import SCALES, MirrorTurnScale
from mtl_ext.data.dense_tasks import segmentation_task
from mtl_ext.data.extra_tasks import with_extra_tasks
from mtl_ext.data.fields import Field, Sample, resize
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.losses import balanced_bce, masked_l1, normals_l1
from mtl_ext.data.prepare import IGNORE, ResizeAndMark
from mtl_ext.data.reading import Layout, labels, read_image, read_npy, read_pixels, within
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.metrics import MeanAngle, OdsF, RootMeanSquareError

CLASSES = 40
LAYOUT = Layout(
    "NYUD_MT",
    """\
ROOT/gt_sets/{train,val}.txt   ids, one a line; published: 795 and 654
ROOT/images/{id}.jpg           colors; published: 480 x 640
ROOT/segmentation/{id}.png     1 + class, classes 0 .. 39; 0 without a label
ROOT/depth/{id}.npy            [H, W], metres, 0 where unknown
ROOT/normals/{id}.npy          [H, W, 3], unit vectors, (0, 0, 0) where unknown
ROOT/edge/{id}.npy             [H, W], 1 on edges, 0 elsewhere""",
)
FIELDS = {
    "segmentation": Field(fill=IGNORE),
    "depth": Field(fill=0, power=-1),
    "normals": Field(fill=0, interpolation="bicubic", vectors=True),
    "edges": Field(fill=0),
}
TASKS = (
    segmentation_task("segmentation", CLASSES, IGNORE),
    Task(
        "depth", "pixels", 1, partial(masked_l1, invalid=float(IGNORE)), (partial(RootMeanSquareError, invalid=IGNORE),)
    ),
    Task("normals", "pixels", 3, partial(normals_l1, invalid=IGNORE, per_channel=True), (MeanAngle,)),
    Task("edges", "pixels", 1, balanced_bce, (OdsF,)),
)


def nyud_mt(
    root: str,
    size: tuple[int, int] = (480, 640),
    augment: bool = True,
    noise: bool = False,
    pseudo_labels: bool = False,
    workers: int = 0,
) -> MultiTaskData:
    """NYUv2 from a folder that holds NYUD_MT, the layout of MTI-Net (also IAL's pre-processing).

    Training samples are mirrored and enlarged about the middle by 1, 1.2 or 1.5; all are resized and marked by
    :class:`ResizeAndMark`. Depth is measured by the root of the mean square over the whole split.

    Args:
        root: the folder of the layout.
        size: height and width of what the network gets.
        augment: whether training samples are augmented.
        noise: whether to add the task of :func:`with_noise`.
        pseudo_labels: whether to add the tasks of ROOT/pseudo, see :func:`with_pseudo_labels`.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32, ImageNet-normalised; targets ``segmentation`` [H, W] int64 (40 classes), ``depth``
        [1, H, W] metres, ``normals`` [3, H, W] and ``edges`` [1, H, W] (0 or 1); 255 is no label everywhere. Test is
        val, as published.

    Raises:
        FileNotFoundError: a folder, a list or a file of the layout is missing.
        ImportError: Pillow is not installed.
        ValueError: while loading, a broken file, which the message names.
    """
    base = Path(root)
    change = MirrorTurnScale(angle=0.0, scales=SCALES, listed=True) if augment else None
    prepare = ResizeAndMark((size[0], size[1]), zeros=("depth",))

    def split(name: str) -> FolderSplit:
        ids = LAYOUT.listed(base / "gt_sets" / f"{name}.txt")
        for part in ("images", "segmentation", "depth", "normals", "edge"):
            LAYOUT.folder(base / part)
        return FolderSplit(name, ids, partial(read_sample, base), FIELDS, change, prepare, workers)

    return with_extra_tasks(MultiTaskData(TASKS, split("train"), split("val")), root, noise, pseudo_labels)


def read_sample(root: Path, name: str) -> Sample:
    """One sample in its own size, colors from 0 to 255."""
    image = read_image(root / "images" / f"{name}.jpg")
    seg_path = root / "segmentation" / f"{name}.png"
    stored = torch.from_numpy(read_pixels(seg_path))
    depth_path, normals_path, edge_path = (root / part / f"{name}.npy" for part in ("depth", "normals", "edge"))
    normals = within(normals_path, read_npy(normals_path, (None, None, 3)), -1.0, 1.0).permute(2, 0, 1)
    size = (image.shape[-2], image.shape[-1])
    return image, {
        "segmentation": resize(labels(seg_path, torch.where(stored == 0, IGNORE, stored - 1), CLASSES, IGNORE), size),
        "depth": resize(within(depth_path, _one_channel(depth_path), 0.0, float("inf")), size),
        "normals": resize(normals, size, "bicubic"),
        "edges": resize(within(edge_path, _one_channel(edge_path), 0.0, 1.0).round(), size),
    }


def _one_channel(path: Path) -> Tensor:
    """An array [H, W] or [H, W, 1] as [1, H, W]."""
    array = read_npy(path, (None, None), (None, None, 1))
    return array.reshape(1, *array.shape[:2])
