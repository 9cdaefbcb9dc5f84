"""UTKFace: age, gender and ethnicity of faces, told by the files' names (Zhang et al. 2017)."""

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.fields import Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.images import mirror_half, read_resized
from mtl_ext.data.reading import Layout, read_json
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.files import write_text
from mtl_ext.metrics import Accuracy

# age_gender_race_time.jpg or age_gender_race_time.jpg.chip.jpg (aligned and cropped).
NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+\.jpg(?:\.chip\.jpg)?")
OLDEST = 116
AGE_BINS = 7
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
TASKS = (
    Task("age", "classes", AGE_BINS, functional.cross_entropy, (Accuracy,)),
    Task("gender", "classes", 2, functional.cross_entropy, (Accuracy,)),
    Task("ethnicity", "classes", 5, functional.cross_entropy, (Accuracy,)),
)
LAYOUT = Layout(
    "UTKFace",
    """\
root/UTKFace/, or root itself
  [age]_[gender]_[race]_[time].jpg.chip.jpg     23,708 images of 200 x 200 pixels; .jpg alone will do as well""",
)


def utkface(root: str, size: int | None = 200, flip: bool = False, seed: int = 0, workers: int = 0) -> MultiTaskData:
    """Reads the user's copy of UTKFace.

    The published set has no official split, and DGR does not tell its own. Ours takes 70 % of the images for training,
    10 % for validation and 20 % for testing, drawn by the seed, and is recorded in ``split_seed{seed}.json`` in the
    folder of the images. Where that file exists, it is the split.

    Args:
        root: the folder that holds ``UTKFace``, or the folder of the images.
        size: height and width to which images are resized (bilinear with antialiasing); none keeps them.
        flip: mirror half of the images in training; DGR does not say that it does.
        seed: of the split.
        workers: threads that load images ahead.

    Returns:
        Tasks ``age`` (7 classes: 0-9, 10-19, ..., 50-59, and 60 and above, as in DGR), ``gender`` (0 male, 1 female)
        and ``ethnicity`` (0 .. 4, the race of the file's name); inputs [B, 3, size, size] float32 in [0, 1].

    Raises:
        FileNotFoundError: no such folder, or no usable image in it.
        ValueError: an image is broken, or the recorded split does not fit the images.

    Warns:
        UserWarning: names that lack a field, as a few in the published set, or whose values are out of range; these
            images are left out.
    """
    folder = LAYOUT.folder(Path(root) / "UTKFace", Path(root))
    names = usable_names(folder)
    targets = utkface_targets(np.array([parse_name(name) for name in names]))
    row_of = {name: row for row, name in enumerate(names)}

    def load(name: str) -> Sample:
        return read_resized(folder / name, size), {task: values[row_of[name]] for task, values in targets.items()}

    splits = {
        part: FolderSplit(part, ids, load, augment=mirror_half if flip and part == "train" else None, workers=workers)
        for part, ids in recorded_split(folder / f"split_seed{seed}.json", names, seed).items()
    }
    return MultiTaskData(TASKS, **splits)


def parse_name(name: str) -> tuple[int, int, int] | None:
    """Age in years, gender and race of a file's name; none where the name does not give them."""
    match = NAME.fullmatch(name)
    if match is None or int(match[1]) > OLDEST:
        return None
    return int(match[1]), int(match[2]), int(match[3])


def usable_names(folder: Path) -> list[str]:
    """The sorted names of a folder's images, without those that do not give the targets.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(path.name for path in folder.glob("*.jpg"))
    names = [name for name in found if parse_name(name) is not None]
    if not names:
        raise LAYOUT.missing(f"none of the {len(found)} .jpg files in {folder} has a name that gives the targets")
    if len(names) < len(found):
        unusable = ", ".join(name for name in found if parse_name(name) is None)
        warnings.warn(
            f"{len(found) - len(names)} of {len(found)} images left out for their names: {unusable}", stacklevel=3
        )
    return names


def utkface_targets(fields: np.ndarray) -> dict[str, Tensor]:
    """The targets of the three tasks from age, gender and race, [M, 3]."""
    age, gender, race = torch.from_numpy(fields).long().unbind(1)
    return {"age": (age // 10).clamp(max=AGE_BINS - 1), "gender": gender, "ethnicity": race}


def recorded_split(path: Path, names: Sequence[str], seed: int) -> dict[str, list[str]]:
    """The names of each part, from the record; without one, drawn by the seed and recorded.

    Raises:
        ValueError: there are too few names to fill every part, or the record does not fit the names.
    """
    if path.exists():
        split = read_json(path)
        fits = isinstance(split, dict) and set(split) == set(SHARES)
        if not fits or sorted(name for part in split.values() for name in part) != sorted(names):
            raise ValueError(f"{path} does not hold every usable image of its folder once: remove it to split anew")
        return {part: split[part] for part in SHARES}
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    train, val = (round(SHARES[part] * len(names)) for part in ("train", "val"))
    split = {
        "train": sorted(order[:train]),
        "val": sorted(order[train : train + val]),
        "test": sorted(order[train + val :]),
    }
    if not all(split.values()):
        raise ValueError(f"{path.parent} holds {len(names)} usable images, too few for training, validation and test")
    try:
        write_text(path, json.dumps(split, indent=1) + "\n")
    except OSError as error:
        warnings.warn(f"the split is not recorded: {error}. It follows from the seed and the images", stacklevel=3)
    return split
