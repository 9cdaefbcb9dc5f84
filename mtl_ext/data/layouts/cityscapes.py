"""The files of Cityscapes' two preparations: MTAN's arrays, and auto-lambda's images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.layouts.files import cleared, to_bytes, write_image, write_npy
from mtl_ext.data.layouts.writer import NumberedWriter
from mtl_ext.data.scenes import CLASSES, Scene

# For each of mtl_ext.data.scenes.CLASSES. Of the 7 categories: construction, flat, sky, human, vehicle, object, nature.
CATEGORIES = np.array([2, 0, 4, 5, 6, 1, 3])
# Raw label ids: building, road, sky, person, car, bus, rider.
RAW_IDS = np.array([11, 7, 23, 24, 26, 28, 25])
UNLABELED = 0
# Part ids of an object's body and top: torso and head of people, chassis and windows of cars.
PARTS = {"ball": (1, 2), "mug": (1, 2), "crate": (5, 1), "can": (5, 1)}


class CityscapesWriter(NumberedWriter):
    """Writes {split}/{image,label_7,depth}/{index}.npy, as :func:`mtl_ext.data.cityscapes` reads them."""

    size = (128, 256)
    splits: Mapping[str, int] = {"train": 2975, "val": 500}

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        arrays = {
            "image": scene.rgb,
            "label_7": cleared(CATEGORIES[scene.semantics], scene.edges, -1),
            "depth": cleared(1.0 / scene.depth, scene.edges, 0)[..., None],
        }
        for folder, array in arrays.items():
            write_npy(root / split / folder / f"{index}.npy", array)


class CityscapesPngWriter(NumberedWriter):
    """Writes {split}/{image,seg,depth}/{index}.png and part_seg/{index}.tif.

    :func:`mtl_ext.data.cityscapes_png` reads them.
    """

    size = (256, 512)
    splits: Mapping[str, int] = {"train": 2975, "val": 500}

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        folder = root / split
        write_image(folder / "image" / f"{index}.png", to_bytes(scene.rgb))
        seg = cleared(RAW_IDS[scene.semantics], scene.edges, UNLABELED)
        write_image(folder / "seg" / f"{index}.png", seg.astype(np.uint8))
        # Disparities are stored for images four times as wide, 256 steps to the pixel, and 1 more.
        stored = np.rint(1024.0 * scene.disparity).clip(0, 65534) + 1
        write_image(folder / "depth" / f"{index}.png", cleared(stored, scene.edges, 0).astype(np.uint16))
        write_image(folder / "part_seg" / f"{index}.tif", part_uids(scene).astype(np.int32))


def part_uids(scene: Scene) -> np.ndarray:
    """Uids of panoptic parts [H, W]: raw label id, three digits of instance, two of part; stuff has its label id."""
    parts = np.zeros((len(CLASSES), 3), dtype=np.int64)
    for name, ids in PARTS.items():
        parts[CLASSES.index(name), 1:] = ids
    raw = RAW_IDS[scene.semantics].astype(np.int64)
    things = raw * 100_000 + scene.instances * 100 + parts[scene.semantics, scene.parts]
    uids: np.ndarray = np.where(scene.instances > 0, things, raw)
    return uids
