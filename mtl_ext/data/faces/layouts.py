"""The drawn faces in the files of CelebA and UTKFace, as their loaders read them.

The writers are used like those of rendered scenes: samples come in any order and from several processes, and
`finish` writes the lists when all are there. What the lists need is kept in the images' comments.
"""

from collections.abc import Mapping
from pathlib import Path

from mtl_ext.data.celeba import ATTRIBUTES, PARTITIONS
from mtl_ext.data.faces.face import Face
from mtl_ext.data.images import COMMENT, write_image
from mtl_ext.data.reading import reading
from mtl_ext.files import write_text


class CelebAWriter:
    """Writes images, ``list_attr_celeba.txt`` and ``list_eval_partition.txt``.

    Images are numbered as in the published set, whose training images come first, then those of validation and test.

    Args:
        png: the layout of MGDA's code, whose images are PNG; else torchvision's, JPEG.
    """

    size = (218, 178)
    splits: Mapping[str, int] = {"train": 162_770, "val": 19_867, "test": 19_962}

    def __init__(self, png: bool = False) -> None:
        self.suffix = ".png" if png else ".jpg"
        self.images = Path("Img/img_align_celeba_png") if png else Path("celeba/img_align_celeba")
        self.annotations = Path("Anno/list_attr_celeba.txt") if png else Path("celeba/list_attr_celeba.txt")
        self.partition = Path("Eval/list_eval_partition.txt") if png else Path("celeba/list_eval_partition.txt")

    def write(self, face: Face, root: Path, split: str, index: int) -> None:
        """Writes one image.

        Raises:
            ValueError: the published split is smaller, so that the number belongs to another one.
        """
        path = root / self.images / f"{self._number(split, index):06d}{self.suffix}"
        write_image(path, face.pixels, " ".join(f"{2 * int(value) - 1:2d}" for value in face.attributes))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes the lists of the images' attributes and splits."""
        rows, parts = [], []
        for part, split in enumerate(PARTITIONS):
            for index in range(sizes[split]):
                stem = f"{self._number(split, index):06d}"
                rows.append(f"{stem}.jpg {read_comment(root / self.images / f'{stem}{self.suffix}')}\n")
                parts.append(f"{stem}.jpg {part}\n")
        head = f"{len(rows)}\n{' '.join(ATTRIBUTES)}\n"
        write_text(root / self.annotations, head + "".join(rows))
        write_text(root / self.partition, "".join(parts))

    def _number(self, split: str, index: int) -> int:
        if index >= self.splits[split]:
            raise ValueError(f"{split} has a sample {index}, but CelebA's layout has room for {self.splits[split]}")
        before = PARTITIONS[: PARTITIONS.index(split)]
        return 1 + index + sum(self.splits[name] for name in before)


class UTKFaceWriter:
    """Writes images whose names tell age, gender and group."""

    size = (200, 200)
    splits: Mapping[str, int] = {"images": 23_708}

    def write(self, face: Face, root: Path, split: str, index: int) -> None:
        """Writes one image."""
        # The last field is a date and time in milliseconds; here it only tells the images apart.
        name = f"{face.age}_{face.gender}_{face.group}_{20170101000000000 + index}.jpg.chip.jpg"
        write_image(root / "UTKFace" / name, face.pixels)

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Nothing is left to write: the names tell everything."""


FACE_LAYOUTS: dict[str, CelebAWriter | UTKFaceWriter] = {
    "celeba": CelebAWriter(),
    "celeba_png": CelebAWriter(png=True),
    "utkface": UTKFaceWriter(),
}


def read_comment(path: Path) -> str:
    """The comment of an image that :func:`write_image` wrote.

    Raises:
        FileNotFoundError: there is no such image.
        ValueError: it is broken or has no comment.
    """
    from PIL import Image

    with reading(path), Image.open(path) as image:
        comment = image.info[COMMENT]
        return comment.decode() if isinstance(comment, bytes) else str(comment)
