"""The glyphs in files: CIFAR-100's, and one folder per class."""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.cifar100 import DOMAINS, FINE_NAMES, FINE_OF, FOLDER
from mtl_ext.data.cifar100 import SIZE as CIFAR_SIZE
from mtl_ext.data.glyphs.glyph import GLYPHS, Glyph
from mtl_ext.data.images import write_image
from mtl_ext.files import write_atomically


class CIFAR100Writer:
    """Writes glyphs in the files of CIFAR-100, as :func:`mtl_ext.data.cifar100.cifar100` reads them.

    Domain k takes the place of superclass k, and its glyphs those of the superclass's classes; the images are coloured.
    ``meta`` keeps CIFAR-100's names.
    """

    size = (CIFAR_SIZE, CIFAR_SIZE)
    splits: Mapping[str, int] = {"train": 50_000, "test": 10_000}

    def write(self, glyph: Glyph, root: Path, split: str, index: int) -> None:
        """Writes one image where `finish` finds it.

        Raises:
            ValueError: its size is not 32 x 32.
        """
        if glyph.size != CIFAR_SIZE:
            raise ValueError(f"the image has {glyph.size} x {glyph.size} pixels, CIFAR-100's have 32 x 32")
        colours = np.random.default_rng((glyph.seed, glyph.index, CIFAR_SIZE))
        ink, paper = colours.uniform(0, 255, (2, 3, 1, 1))
        pixels = (paper + (ink - paper) * (glyph.draw(split) / 255.0)).round().astype(np.uint8)
        labels = np.array([FINE_OF[glyph.domain, glyph.place], glyph.domain], dtype=np.uint8)
        content = np.concatenate([labels, pixels.ravel()])
        write_atomically(self._part(root, split, index), lambda file: file.write(content.tobytes()))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Packs all images of each split into one file."""
        for split, count in sizes.items():
            parts = [self._part(root, split, index).read_bytes() for index in range(count)]
            packed = np.frombuffer(b"".join(parts), dtype=np.uint8).reshape(count, -1)
            content = {
                "filenames": [f"glyph_{index:06d}.png" for index in range(count)],
                "batch_label": f"{split}ing batch 1 of 1",
                "fine_labels": packed[:, 0].tolist(),
                "coarse_labels": packed[:, 1].tolist(),
                "data": packed[:, 2:].copy(),
            }
            _write_pickle(root / FOLDER / split, content)
        names = {"fine_label_names": list(FINE_NAMES), "coarse_label_names": list(DOMAINS)}
        _write_pickle(root / FOLDER / "meta", names)
        shutil.rmtree(root / ".parts")

    def _part(self, root: Path, split: str, index: int) -> Path:
        return root / ".parts" / split / f"{index}.bin"


class ClassFolderWriter:
    """Writes glyphs in one folder per class, as :func:`mtl_ext.data.class_folder.class_folder` reads them."""

    size = (64, 64)
    splits: Mapping[str, int] = {"train": 50_000, "val": 5_000}

    def write(self, glyph: Glyph, root: Path, split: str, index: int) -> None:
        """Writes one image."""
        folder = f"{list(GLYPHS)[glyph.domain]}_{glyph.place + 1}"
        write_image(root / split / folder / f"{index}.png", glyph.draw(split))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Nothing is left to write."""


GLYPH_LAYOUTS: dict[str, CIFAR100Writer | ClassFolderWriter] = {
    "cifar100": CIFAR100Writer(),
    "class_folder": ClassFolderWriter(),
}


def _write_pickle(path: Path, content: Mapping[str, object]) -> None:
    write_atomically(path, lambda file: pickle.dump(dict(content), file, protocol=2))
