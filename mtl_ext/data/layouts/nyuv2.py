"""The files of NYUv2's preprocessed .npy release."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.layouts.files import cleared, write_npy
from mtl_ext.data.layouts.writer import NumberedWriter
from mtl_ext.data.scenes import Scene

# Of the 13 classes, for each of mtl_ext.data.scenes.CLASSES: wall, floor, ceiling, objects, furniture, books, chair.
LABELS = np.array([11, 4, 2, 6, 5, 1, 3])


class NYUv2Writer(NumberedWriter):
    """Writes {split}/{image,label,depth,normal}/{index}.npy, as :func:`mtl_ext.data.nyuv2` reads them."""

    size = (288, 384)
    splits: Mapping[str, int] = {"train": 795, "val": 654}

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        arrays = {
            "image": scene.rgb,
            "label": cleared(LABELS[scene.semantics], scene.edges, -1),
            "depth": cleared(scene.depth, scene.edges, 0)[..., None],
            "normal": cleared(scene.normals, scene.edges, 0),
        }
        for folder, array in arrays.items():
            write_npy(root / split / folder / f"{index}.npy", array)
