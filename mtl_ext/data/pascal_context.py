"""PASCAL-Context for five dense tasks (PASCAL_MT): classes, human parts, saliency, edges, surface normals."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtl_ext.data.augment import MirrorTurnScale
from mtl_ext.data.edges import label_edges
from mtl_ext.data.extra_tasks import with_extra_tasks
from mtl_ext.data.fields import Field, Sample, resize
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.losses import balanced_bce, normals_l1, pixel_cross_entropy
from mtl_ext.data.prepare import IGNORE, ResizeAndMark
from mtl_ext.data.reading import Layout, labels, read_image, read_json, read_mat, read_pixels, reading
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.metrics import MaxIoU, MeanAngle, MeanIoU, OdsF

CLASSES = 21
PARTS = 7
PERSON = 15
LAYOUT = Layout(
    "PASCAL-Context",
    """\
ROOT/ImageSets/Context/{train,val}.txt         ids, one a line; published: 4998 and 5105
ROOT/JPEGImages/{id}.jpg                       colors, of any size
ROOT/semseg/VOC12/{id}.png                     classes 0 .. 20, 255 without a label; or else
ROOT/semseg/pascal-context/{id}.png
ROOT/human_parts/{id}.mat                      `anno`, the PASCAL-Part annotation
ROOT/ImageSets/Parts/{train,val}.txt           optional: JSON of each id's object categories
ROOT/pascal-context/trainval/{id}.mat          `LabelMap`, the 459 classes of PASCAL-Context
ROOT/normals_distill/{id}.png                  255 * (normal + 1) / 2
ROOT/sal_distill/{id}.png                      255 * saliency""",
)
# Left and right share a number: 1 head, 2 torso, 3 upper arms, 4 lower arms and hands, 5 upper legs, 6 lower legs and
# feet.
PART_NUMBERS = (
    dict.fromkeys(("hair", "head", "lear", "lebrow", "leye", "mouth", "nose", "rear", "rebrow", "reye"), 1)
    | dict.fromkeys(("neck", "torso"), 2)
    | dict.fromkeys(("luarm", "ruarm"), 3)
    | dict.fromkeys(("lhand", "llarm", "rhand", "rlarm"), 4)
    | dict.fromkeys(("luleg", "ruleg"), 5)
    | dict.fromkeys(("lfoot", "llleg", "rfoot", "rlleg"), 6)
)
# Normals were distilled from a network trained on NYUv2: only classes of PASCAL-Context that NYUv2 has too, by name
# (and tvmonitor), have normals.
NORMAL_CLASSES = (
    *(3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50, 51, 53, 55, 56),
    *(59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104, 105, 107, 111, 113, 115, 122, 124),
    *(135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172, 174, 181, 183, 184, 191, 193, 195, 197, 199, 202),
    *(213, 215, 216, 219, 220, 223, 225, 228, 230, 232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261),
    *(263, 269, 272, 273, 275, 281, 283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314),
    *(315, 319, 323, 329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383),
    *(384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432, 440, 441, 442),
    *(443, 444, 446, 454, 457),
)
# The published code fills what a turn brings in from outside with 0, which is the background class.
FIELDS = {
    "segmentation": Field(fill=0),
    "parts": Field(fill=0),
    "saliency": Field(fill=0),
    "normals": Field(fill=0, interpolation="bicubic", vectors=True),
    "edges": Field(fill=0),
}
TASKS = (
    Task(
        "segmentation",
        "pixels",
        CLASSES,
        partial(pixel_cross_entropy, ignore=IGNORE),
        (partial(MeanIoU, CLASSES, absent="zero"),),
    ),
    Task(
        "parts",
        "pixels",
        PARTS,
        partial(pixel_cross_entropy, ignore=IGNORE),
        (partial(MeanIoU, PARTS, absent="zero", skip_background_images=True),),
    ),
    Task("saliency", "pixels", 1, partial(balanced_bce, positive=None), (MaxIoU,)),
    Task("normals", "pixels", 3, partial(normals_l1, invalid=IGNORE, per_channel=True), (MeanAngle,)),
    Task("edges", "pixels", 1, balanced_bce, (OdsF,)),
)


def pascal_context(
    root: str,
    size: tuple[int, int] = (512, 512),
    augment: bool = True,
    noise: bool = False,
    pseudo_labels: bool = False,
    workers: int = 0,
) -> MultiTaskData:
    """PASCAL-Context from a folder that holds PASCAL_MT, the release of ASTMT (also of MTI-Net, DGR and IAL).

    Training samples are augmented by :class:`MirrorTurnScale` (20 degrees, scales 0.75 to 1.25); all are resized and
    marked by :class:`ResizeAndMark`. Edges weigh their positives 0.95, saliency by the batch's share of negatives.
    Loss weights of the published code: segmentation 1, parts 2, saliency 5, normals 10, edges 50. Its final figures
    are measured in the images' own sizes, these in `size`.

    Args:
        root: the folder of the layout.
        size: height and width of what the network gets.
        augment: whether training samples are augmented.
        noise: whether to add the task of :func:`with_noise`.
        pseudo_labels: whether to add the tasks of ROOT/pseudo, see :func:`with_pseudo_labels`.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32, ImageNet-normalised; targets ``segmentation`` [H, W] int64 (21 classes),
        ``parts`` [H, W] int64 (7), ``saliency`` and ``edges`` [1, H, W] float32 (0 or 1), ``normals`` [3, H, W];
        255 is no label everywhere. An image without people has no label in all of ``parts``. Test is val, as published.

    Raises:
        FileNotFoundError: a folder, a list or a file of the layout is missing.
        ImportError: scipy or Pillow is not installed.
        ValueError: while loading, a broken file, which the message names.
    """
    base = Path(root)
    change = MirrorTurnScale() if augment else None
    prepare = ResizeAndMark((size[0], size[1]), all_zeros=("parts",))

    def split(name: str) -> FolderSplit:
        ids = LAYOUT.listed(base / "ImageSets" / "Context" / f"{name}.txt")
        for part in ("JPEGImages", "human_parts", "pascal-context/trainval", "normals_distill", "sal_distill"):
            LAYOUT.folder(base / part)
        people = images_of_people(base / "ImageSets" / "Parts" / f"{name}.txt", ids)
        return FolderSplit(name, ids, partial(read_sample, base, people), FIELDS, change, prepare, workers)

    return with_extra_tasks(MultiTaskData(TASKS, split("train"), split("val")), root, noise, pseudo_labels)


def images_of_people(path: Path, ids: list[str]) -> set[str]:
    """The images that may show people: those of the optional list of objects, or all without one that fits.

    Raises:
        ValueError: the list is broken.
    """
    if not path.is_file():
        return set(ids)
    categories = read_json(path)
    if not isinstance(categories, dict) or not all(isinstance(found, list) for found in categories.values()):
        raise ValueError(f"{path} holds no mapping from ids to lists of categories; without the file, all is read anew")
    if set(categories) != set(ids):
        return set(ids)
    return {name for name, found in categories.items() if PERSON in found}


def read_sample(root: Path, people: set[str], name: str) -> Sample:
    """One sample in its own size, colors from 0 to 255."""
    image = read_image(root / "JPEGImages" / f"{name}.jpg")
    segmentation = LAYOUT.file(*(root / "semseg" / part / f"{name}.png" for part in ("VOC12", "pascal-context")))
    parts = read_parts(root / "human_parts" / f"{name}.mat") if name in people else None
    map_path = root / "pascal-context" / "trainval" / f"{name}.mat"
    label_map = np.asarray(read_mat(map_path, "LabelMap"))
    if label_map.ndim != 2 or label_map.dtype.kind not in "ui":
        raise ValueError(f"{map_path}: LabelMap is {label_map.dtype} {list(label_map.shape)}, expected integers [H, W]")
    saliency = read_pixels(root / "sal_distill" / f"{name}.png") / 255.0 > 0.5
    classes = torch.from_numpy(read_pixels(segmentation))
    size = (image.shape[-2], image.shape[-1])
    return image, {
        "segmentation": resize(labels(segmentation, classes, CLASSES, IGNORE), size),
        "parts": torch.zeros(size, dtype=torch.int64) if parts is None else resize(torch.from_numpy(parts), size),
        "saliency": resize(torch.from_numpy(saliency).float()[None], size),
        "normals": resize(read_normals(root / "normals_distill" / f"{name}.png", label_map), size, "bicubic"),
        "edges": resize(torch.from_numpy(label_edges(label_map)).float()[None], size),
    }


def read_normals(path: Path, label_map: np.ndarray) -> Tensor:
    """Distilled normals [3, H, W], 0 where the class [H, W] has none."""
    normals = 2.0 * read_image(path) / 255.0 - 1.0
    if normals.shape[1:] != label_map.shape:
        raise ValueError(f"{path} has {list(normals.shape[1:])} pixels, its LabelMap {list(label_map.shape)}")
    return normals * torch.from_numpy(np.isin(label_map, NORMAL_CLASSES))


def read_parts(path: Path) -> np.ndarray | None:
    """Parts [H, W] int64 of all people in an annotation of PASCAL-Part; None when there is nobody with parts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken, or names an unknown part.
    """
    annotation = read_mat(path, "anno")
    with reading(path):
        # MATLAB's structs come as arrays [1, n] of records: image name, objects; of an object: name, category, mask,
        # parts; of a part: name, mask.
        _, objects = annotation[0, 0]
        found: np.ndarray | None = None
        for _, category, mask, parts in objects.ravel():
            if int(np.asarray(category).item()) != PERSON or parts.size == 0:
                continue
            found = np.zeros(mask.shape, dtype=np.int64) if found is None else found
            for part_name, part_mask in parts.ravel():
                found[part_mask.astype(bool)] = _part_number(part_name)
        return found


def _part_number(name: Any) -> int:
    text = str(np.asarray(name).item())
    if text not in PART_NUMBERS:
        raise ValueError(f"a person has the part {text!r}, expected one of {', '.join(sorted(PART_NUMBERS))}")
    return PART_NUMBERS[text]
