"""Cityscapes in MTAN's preprocessed .npy release: segmentation and inverse depth of small street scenes."""

from functools import partial
from pathlib import Path

from mtl_ext.data.augment import CropZoom
from mtl_ext.data.dense_tasks import segmentation_task, value_task
from mtl_ext.data.extra_tasks import with_extra_tasks
from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.reading import Layout, labels, read_npy, same_size, within
from mtl_ext.data.task import MultiTaskData
from mtl_ext.methods.base import check_choice

LAYOUT = Layout(
    "Cityscapes (.npy release)",
    """\
ROOT/{train,val}/image/{0, 1, ...}.npy     [H, W, 3], colors in [0, 1]; published: 2975 and 500 of 128 x 256
ROOT/{train,val}/label_7/{0, 1, ...}.npy   [H, W], classes 0 .. 6, -1 without a label (label_2, label_19, or label for
                                           the one that a release has)
ROOT/{train,val}/depth/{0, 1, ...}.npy     [H, W, 1], inverse depth, 0 where unknown""",
)
FIELDS = {"segmentation": Field(fill=-1), "depth": Field(fill=0, power=-1)}


def cityscapes(
    root: str,
    classes: int = 7,
    augment: bool = True,
    noise: bool = False,
    pseudo_labels: bool = False,
    reduction: str = "exact",
    workers: int = 0,
) -> MultiTaskData:
    """Cityscapes from a folder that holds MTAN's .npy release, at 128 x 256 or 256 x 512.

    Training samples are augmented by :class:`CropZoom`, which divides depth by the scale as the published loaders do;
    for the inverse depth that the files hold, multiplying would be right.

    Args:
        root: the folder with train/ and val/.
        classes: 2, 7 or 19: reads the folder ``label_CLASSES`` (as CAGrad) or else ``label`` (as LibMTL).
        augment: whether training samples are augmented.
        noise: whether to add the task of :func:`with_noise`.
        pseudo_labels: whether to add the tasks of ROOT/pseudo, see :func:`with_pseudo_labels`.
        reduction: how errors are averaged over a split; published tables hold ``"batch_mean"`` (MTAN) and
            ``"sample_weighted"`` (auto-lambda), see :class:`mtl_ext.metrics.base.ErrorMean`.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32 in [0, 1]; targets ``segmentation`` [H, W] int64 (-1: no label) and ``depth``
        [1, H, W], inverse depth (0: no label). Test is val/, as published.

    Raises:
        FileNotFoundError: a folder or a file of the layout is missing.
        ValueError: an unknown number of classes or reduction, or (while loading) a broken file: the message names it.
    """
    check_choice("classes", classes, (2, 7, 19))
    tasks = (segmentation_task("segmentation", classes), value_task("depth", 0.0, reduction))
    change = CropZoom() if augment else None

    def split(name: str) -> FolderSplit:
        folder = Path(root) / name
        label = LAYOUT.folder(folder / f"label_{classes}", folder / "label").name
        LAYOUT.folder(folder / "depth")
        ids = LAYOUT.numbered(folder / "image", ".npy")
        return FolderSplit(name, ids, partial(read_sample, folder, label, classes), FIELDS, change, workers=workers)

    return with_extra_tasks(MultiTaskData(tasks, split("train"), split("val")), root, noise, pseudo_labels)


def read_sample(folder: Path, label_folder: str, classes: int, name: str) -> Sample:
    """One sample as it lies on disk, from the folder of its split."""
    paths = {part: folder / part / f"{name}.npy" for part in ("image", label_folder, "depth")}
    image = within(paths["image"], read_npy(paths["image"], (None, None, 3)), 0.0, 1.0)
    label = labels(paths[label_folder], read_npy(paths[label_folder], (None, None)), classes, -1)
    depth = within(paths["depth"], read_npy(paths["depth"], (None, None, 1)), 0.0, float("inf"))
    targets = {"segmentation": label, "depth": depth.permute(2, 0, 1)}
    image = image.permute(2, 0, 1)
    same_size(image, targets, f"sample {name} of {folder}")
    return image, targets
