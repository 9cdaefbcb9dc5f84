"""CelebA: forty binary attributes of celebrities' faces, one task each (Liu et al. 2015)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from mtl_ext.data.fields import Sample
from mtl_ext.data.folder import FolderSplit
from mtl_ext.data.images import mirror_half, read_resized
from mtl_ext.data.reading import Layout, reading
from mtl_ext.data.task import MultiTaskData, Task
from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.metrics import Accuracy

# In the order of the file.
ATTRIBUTES = (
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
)
PRESETS = {
    # A1 .. A9 of SAAL's tables: the first nine in the order of the file.
    "saal": ATTRIBUTES[:9],
    # The tasks of TAG's notebook (Fifty et al. 2021).
    "tag": (
        "5_o_Clock_Shadow",
        "Black_Hair",
        "Blond_Hair",
        "Brown_Hair",
        "Goatee",
        "Mustache",
        "No_Beard",
        "Rosy_Cheeks",
        "Wearing_Hat",
    ),
    "all": ATTRIBUTES,
}
PARTITIONS = ("train", "val", "test")
LAYOUT = Layout(
    "CelebA",
    """\
root/celeba/                  as torchvision has it; root may also be this folder itself
  list_attr_celeba.txt        number of images; names of the 40 attributes; lines of file name and 40 times 1 or -1
  list_eval_partition.txt     lines of file name and 0 (train), 1 (validation) or 2 (test)
  img_align_celeba/*.jpg      202,599 images
or, as MGDA's code has it,
root/
  Anno/list_attr_celeba.txt
  Eval/list_eval_partition.txt
  Img/img_align_celeba_png/*.png""",
)


def celeba(
    root: str,
    attributes: str | Sequence[str] = "saal",
    size: int | None = 64,
    fraction: float = 1.0,
    flip: bool = False,
    seed: int = 0,
    workers: int = 0,
) -> MultiTaskData:
    """Reads the user's copy of CelebA, in torchvision's layout or in that of MGDA's published code.

    Args:
        root: the folder that holds ``celeba`` or ``Anno``, ``Eval`` and ``Img``.
        attributes: ``"saal"`` (SAAL's nine), ``"tag"`` (TAG's nine), ``"all"`` (40), or names of attributes.
        size: height and width to which images are resized (bilinear with antialiasing); none keeps 218 x 178.
        fraction: share of the training images that is used, drawn once by the seed; SAAL uses 0.1.
        flip: mirror half of the images in training; no paper of the four says that it does.
        seed: of the draw of the fraction.
        workers: threads that load images ahead.

    Returns:
        One task of two classes (0 absent, 1 present) per attribute; inputs [B, 3, size, size] float32 in [0, 1];
        162,770 training, 19,867 validation and 19,962 test images in the published set.

    Raises:
        FileNotFoundError: a file or folder is missing.
        ValueError: an unknown attribute, a fraction outside of (0, 1], or a file that is not what it should be.
    """
    chosen = choose_attributes(attributes)
    check_range("fraction", fraction, 0.0, 1.0, open_low=True)
    annotations, partition, images, suffix = _find(Path(root))
    names, present = read_attributes(annotations)
    parts = read_partition(partition, names)
    missing = {Path(name).stem for name in names} - {path.stem for path in images.iterdir() if path.suffix == suffix}
    if missing:
        raise LAYOUT.missing(f"{images} lacks {len(missing)} of {len(names)} images, among them {min(missing)}{suffix}")
    targets = torch.from_numpy(present[:, [ATTRIBUTES.index(name) for name in chosen]].astype(np.int64))
    row_of = {Path(name).stem: row for row, name in enumerate(names)}

    def load(stem: str) -> Sample:
        return read_resized(images / f"{stem}{suffix}", size), dict(zip(chosen, targets[row_of[stem]], strict=True))

    splits = []
    for number, part in enumerate(PARTITIONS):
        index = np.flatnonzero(parts == number)
        if part == "train" and fraction < 1.0:
            drawn = np.random.default_rng(seed).permutation(len(index))[: max(1, round(fraction * len(index)))]
            index = index[np.sort(drawn)]
        ids = [Path(names[i]).stem for i in index]
        augment = mirror_half if flip and part == "train" else None
        splits.append(FolderSplit(part, ids, load, augment=augment, workers=workers))
    train, val, test = splits
    return MultiTaskData(attribute_tasks(chosen), train, test, val)


def choose_attributes(attributes: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a preset, or the names given.

    Raises:
        ValueError: no such preset or attribute, none at all, or one twice.
    """
    if isinstance(attributes, str):
        check_choice("attributes", attributes, tuple(PRESETS))
        return PRESETS[attributes]
    chosen = tuple(attributes)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"attributes is {list(chosen)}, expected at least one name and each only once")
    for name in chosen:
        check_choice("attributes", name, ATTRIBUTES)
    return chosen


def attribute_tasks(names: Sequence[str]) -> tuple[Task, ...]:
    """One task of two classes per attribute."""
    return tuple(Task(name, "classes", 2, functional.cross_entropy, (Accuracy,)) for name in names)


def read_attributes(path: Path) -> tuple[list[str], np.ndarray]:
    """The file names [M] and attributes [M, 40] bool of ``list_attr_celeba.txt``.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    with reading(path):
        head, names_line, *lines = path.read_text(encoding="utf-8").splitlines()
        if tuple(names_line.split()) != ATTRIBUTES:
            raise ValueError("its second line does not hold the names of the 40 attributes")
        if int(head) != len(lines):
            raise ValueError(f"its first line says {head.strip()} images, {len(lines)} lines follow")
        names = [line.split(maxsplit=1)[0] for line in lines]
        values = np.loadtxt(lines, dtype=np.int8, usecols=range(1, len(ATTRIBUTES) + 1), ndmin=2)
        if not np.isin(values, (-1, 1)).all():
            row = int(np.flatnonzero(~np.isin(values, (-1, 1)).all(axis=1))[0])
            raise ValueError(f"the line of {names[row]} holds something else than 1 and -1")
    return names, values == 1


def read_partition(path: Path, names: Sequence[str]) -> np.ndarray:
    """The part 0 (train), 1 (validation) or 2 (test) of each image, [M].

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    with reading(path):
        part_of = dict(line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        wrong = next((name for name in names if part_of.get(name) not in ("0", "1", "2")), None)
        if wrong is not None:
            raise ValueError(f"it gives {part_of.get(wrong, 'nothing')} for {wrong}, expected 0, 1 or 2")
    return np.array([int(part_of[name]) for name in names])


def _find(root: Path) -> tuple[Path, Path, Path, str]:
    """The list of attributes, the partition, the folder of images and their suffix."""
    if (root / "Anno").is_dir():
        annotations = LAYOUT.file(root / "Anno" / "list_attr_celeba.txt")
        partition = LAYOUT.file(root / "Eval" / "list_eval_partition.txt")
        return annotations, partition, LAYOUT.folder(root / "Img" / "img_align_celeba_png"), ".png"
    annotations = LAYOUT.file(root / "celeba" / "list_attr_celeba.txt", root / "list_attr_celeba.txt")
    folder = annotations.parent
    partition = LAYOUT.file(folder / "list_eval_partition.txt")
    return annotations, partition, LAYOUT.folder(folder / "img_align_celeba"), ".jpg"
