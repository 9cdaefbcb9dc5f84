"""NYUv2 in its preprocessed .npy release: 13 classes, depth and surface normals of 288 x 384 indoor images."""

from functools import partial
from pathlib import Path

from mtl_ext.data.augment import CropZoom, ScaleCrop
from mtl_ext.data.dense_tasks import normals_task, segmentation_task, value_task
from mtl_ext.data.extra_tasks import with_extra_tasks
from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.losses import normals_cosine, normals_l1
from mtl_ext.data.prepare import center
from mtl_ext.data.reading import Layout, labels, read_npy, same_size, within
from mtl_ext.data.task import MultiTaskData
from mtl_ext.methods.base import check_choice

CLASSES = 13
LAYOUT = Layout(
    "NYUv2",
    """\
ROOT/{train,val}/image/{0, 1, ...}.npy    [H, W, 3], colors in [0, 1]; published: 795 and 654 of 288 x 384
ROOT/{train,val}/label/{0, 1, ...}.npy    [H, W], classes 0 .. 12, -1 without a label
ROOT/{train,val}/depth/{0, 1, ...}.npy    [H, W, 1], metres, 0 where unknown
ROOT/{train,val}/normal/{0, 1, ...}.npy   [H, W, 3], unit vectors, (0, 0, 0) where unknown""",
)


def nyuv2(
    root: str,
    protocol: str = "mtan",
    augment: bool = True,
    noise: bool = False,
    pseudo_labels: bool = False,
    reduction: str = "exact",
    mask: str = "sum",
    workers: int = 0,
) -> MultiTaskData:
    """NYUv2 from a folder that holds the .npy release which MTAN, LibMTL, CAGrad and auto-lambda share.

    Two published protocols differ in more than a name: ``"mtan"`` (also LibMTL's and CAGrad's) feeds images in [0, 1],
    augments by :class:`CropZoom` with bilinear normals and trains normals by 1 - cos; ``"auto_lambda"`` (also DGR's
    and SAAL's) feeds images in [-1, 1], augments by :class:`ScaleCrop` with nearest normals and trains normals by L1.

    Args:
        root: the folder with train/ and val/.
        protocol: ``"mtan"`` or ``"auto_lambda"``.
        augment: whether training samples are augmented.
        noise: whether to add auto-lambda's task of predicting a fixed random map per image.
        pseudo_labels: whether to add the tasks of ROOT/pseudo, see :func:`with_pseudo_labels`.
        reduction: how errors are averaged over a split; published tables hold ``"batch_mean"`` (MTAN) and
            ``"sample_weighted"`` (auto-lambda), see :class:`mtl_ext.metrics.base.ErrorMean`.
        mask: which normals count: ``"sum"`` leaves out those whose components cancel, as published; ``"norm"`` counts
            all of length above 0.
        workers: threads that load ahead.

    Returns:
        Inputs [3, H, W] float32; targets ``segmentation`` [H, W] int64 (-1: no label), ``depth`` [1, H, W] metres
        (0: no label) and ``normals`` [3, H, W] (0: no label), camera coordinates. Test is val/: the release has no
        third part, and published figures are its best or last epoch.

    Raises:
        FileNotFoundError: a folder or a file of the layout is missing.
        ValueError: an unknown protocol, mask or reduction, or (while loading) a broken file, which the message names.
    """
    check_choice("protocol", protocol, ("mtan", "auto_lambda"))
    check_choice("mask", mask, ("sum", "norm"))
    mtan = protocol == "mtan"
    fields = {
        "segmentation": Field(fill=-1),
        "depth": Field(fill=0, power=-1),
        "normals": Field(fill=0, interpolation="bilinear" if mtan else "nearest", vectors=True),
    }
    tasks = (
        segmentation_task("segmentation", CLASSES),
        value_task("depth", 0.0, reduction),
        normals_task("normals", normals_cosine if mtan else normals_l1, reduction, mask),
    )
    change = CropZoom() if mtan else ScaleCrop()

    def split(name: str) -> FolderSplit:
        folder = Path(root) / name
        for part in ("label", "depth", "normal"):
            LAYOUT.folder(folder / part)
        ids = LAYOUT.numbered(folder / "image", ".npy")
        read = partial(read_sample, folder)
        prepare = None if mtan else center
        return FolderSplit(name, ids, read, fields, change if augment else None, prepare, workers)

    return with_extra_tasks(MultiTaskData(tasks, split("train"), split("val")), root, noise, pseudo_labels)


def read_sample(folder: Path, name: str) -> Sample:
    """One sample as it lies on disk, from the folder of its split."""
    paths = {part: folder / part / f"{name}.npy" for part in ("image", "label", "depth", "normal")}
    image = within(paths["image"], read_npy(paths["image"], (None, None, 3)), 0.0, 1.0)
    label = labels(paths["label"], read_npy(paths["label"], (None, None)), CLASSES, -1)
    depth = within(paths["depth"], read_npy(paths["depth"], (None, None, 1)), 0.0, float("inf"))
    normal = within(paths["normal"], read_npy(paths["normal"], (None, None, 3)), -1.01, 1.01)
    targets = {"segmentation": label, "depth": depth.permute(2, 0, 1), "normals": normal.permute(2, 0, 1)}
    image = image.permute(2, 0, 1)
    same_size(image, targets, f"sample {name} of {folder}")
    return image, targets
