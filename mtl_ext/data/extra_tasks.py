"""Tasks that are added to a data set's training samples: random maps, and what other networks saw."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.losses import masked_l1, pixel_cross_entropy, soft_cross_entropy, token_cross_entropy
from mtl_ext.data.reading import Layout, labels, numbers, read_npz, within
from mtl_ext.data.task import MultiTaskData, Task

PSEUDO_CLASSES = 80
IMAGE_CLASSES = 1000
TOKEN_CLASSES = 5
PSEUDO_IGNORE = 255
PSEUDO_LAYOUT = Layout(
    "pseudo labels",
    """\
ROOT/pseudo/train/{id}.npz, one per training sample of the data set in ROOT, with
    seg           uint8 [H, W], COCO classes 0 .. 79, 255 where the score was below 0.5
    cls           float16 [1000], ImageNet probabilities, which sum to 1
    tokens        int16 [h, w, 5], the five most probable ImageNet classes of each cell of the C5 grid
    token_scores  float16 [h, w, 5], their probabilities""",
)
PSEUDO_FIELDS = {
    "pseudo_segmentation": Field(fill=PSEUDO_IGNORE),
    "pseudo_tokens": Field(fill=0, cells=True),
}


def pseudo_tasks(segments: int, classes: int) -> tuple[Task, ...]:
    """The three tasks of pseudo labels, of so many classes of segments and of images.

    Nobody measures them, so they have no metrics and the test samples no such targets.
    """
    return (
        Task("pseudo_segmentation", "pixels", segments, partial(pixel_cross_entropy, ignore=PSEUDO_IGNORE), ()),
        Task("pseudo_class", "classes", classes, soft_cross_entropy, ()),
        Task("pseudo_tokens", "pixels", classes, token_cross_entropy, ()),
    )


PSEUDO_TASKS = pseudo_tasks(PSEUDO_CLASSES, IMAGE_CLASSES)
NOISE_FIELDS = {"noise": Field(fill=0, interpolation="bilinear")}
# A random map has no invalid pixels: the mark is a value that it cannot take.
NOISE_TASK = Task("noise", "pixels", 1, partial(masked_l1, invalid=-1.0), ())


def with_extra_tasks(data: MultiTaskData, root: str | Path, noise: bool, pseudo_labels: bool) -> MultiTaskData:
    """The data set in ROOT with the tasks of :func:`with_noise` and :func:`with_pseudo_labels`, where wanted."""
    data = with_noise(data) if noise else data
    return with_pseudo_labels(data, root) if pseudo_labels else data


def with_noise(data: MultiTaskData, seed: int = 0) -> MultiTaskData:
    """Adds auto-lambda's useless task: to predict a map of uniform noise [1, H, W], one for each training image.

    Args:
        data: with a training split of files.
        seed: of the maps, which depend on nothing else but the image's place in the split.
    """
    train = _files(data)
    numbers_of = {name: number for number, name in enumerate(train.ids)}

    def noise(name: str, image: Tensor) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, numbers_of[name]])
        return {"noise": torch.from_numpy(rng.random((1, *image.shape[-2:]), dtype=np.float32))}

    return _extended(data, train, NOISE_FIELDS, noise, (NOISE_TASK,))


def with_pseudo_labels(data: MultiTaskData, root: str | Path) -> MultiTaskData:
    """Adds the tasks whose labels are predictions of pretrained networks, read from ROOT/pseudo.

    ``pseudo_segmentation`` [H, W] int64 (80 classes, 255: no label), ``pseudo_class`` [1000] float32 (soft labels) and
    ``pseudo_tokens`` [10, h, w] float32 (five class numbers, then their scores; scores of 0: no label). There is no
    augmentation of their own: a crop looks the labels up at its place, and leaves the image's soft label as it is.

    Args:
        data: with a training split of files; the file of a sample is named by its id.
        root: the data set's folder.

    Raises:
        FileNotFoundError: there is no folder of labels, or (while loading) no file for a sample.
        ValueError: while loading, a broken file, which the message names.
    """
    train = _files(data)
    folder = PSEUDO_LAYOUT.folder(Path(root) / "pseudo" / train.name)
    return _extended(data, train, PSEUDO_FIELDS, partial(read_pseudo_labels, folder), PSEUDO_TASKS)


def read_pseudo_labels(folder: Path, name: str, image: Tensor) -> dict[str, Tensor]:
    """The pseudo labels of one image [C, H, W], see :func:`with_pseudo_labels`."""
    path = folder / f"{name}.npz"
    seg_array, class_array, token_array, score_array = read_npz(path, "seg", "cls", "tokens", "token_scores")
    seg = numbers(path, seg_array, image.shape[-2:])
    classes = within(path, numbers(path, class_array, (IMAGE_CLASSES,)), 0.0, 1.0)
    if not abs(float(classes.sum()) - 1.0) < 0.01:
        raise ValueError(f"{path}: cls sums to {float(classes.sum()):g}, expected 1")
    tokens = numbers(path, token_array, (None, None, TOKEN_CLASSES))
    scores = within(path, numbers(path, score_array, tuple(tokens.shape)), 0.0, 1.0)
    # Cells without a label may have any class number, as long as it is one.
    cells = torch.cat((labels(path, tokens, IMAGE_CLASSES, 0).float(), scores), dim=2).permute(2, 0, 1)
    return {
        "pseudo_segmentation": labels(path, seg, PSEUDO_CLASSES, PSEUDO_IGNORE),
        "pseudo_class": classes,
        "pseudo_tokens": cells,
    }


def _files(data: MultiTaskData) -> FolderSplit:
    if not isinstance(data.train, FolderSplit):
        raise TypeError(f"data.train is a {type(data.train).__name__}, expected a FolderSplit")
    return data.train


def _extended(
    data: MultiTaskData,
    train: FolderSplit,
    fields: Mapping[str, Field],
    read: Callable[[str, Tensor], dict[str, Tensor]],
    tasks: tuple[Task, ...],
) -> MultiTaskData:
    """The data set with more targets in its training samples."""

    def load(name: str) -> Sample:
        image, targets = train.load(name)
        return image, targets | read(name, image)

    return replace(data, train=replace(train, load=load, fields={**train.fields, **fields}), tasks=data.tasks + tasks)
