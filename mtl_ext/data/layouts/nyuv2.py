"""The files of NYUv2's preprocessed .npy release."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.layouts.files import write_npy
from mtl_ext.data.scenes import Scene

# Classes of the 13-class map: 0 bed, 1 books, 2 ceiling, 3 chair, 4 floor, 5 furniture, 6 objects, 7 picture, 8 sofa,
# 9 table, 10 television, 11 wall, 12 window. In the order of mtl_ext.data.scenes.CLASSES.
LABELS = np.array([11, 4, 2, 6, 5, 1, 3])


class NYUv2Writer:
    """Writes {split}/{image,label,depth,normal}/{index}.npy, as :func:`mtl_ext.data.nyuv2.nyuv2` reads them."""

    size = (288, 384)
    splits: Mapping[str, int] = {"train": 795, "val": 654}

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        arrays = {
            "image": scene.rgb.astype(np.float32),
            "label": LABELS[scene.semantics].astype(np.int64),
            "depth": scene.depth[..., None].astype(np.float32),
            "normal": scene.normals.astype(np.float32),
        }
        for folder, array in arrays.items():
            write_npy(root / split / folder / f"{index}.npy", array)

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Nothing is left to write: the files' numbers are the index."""
