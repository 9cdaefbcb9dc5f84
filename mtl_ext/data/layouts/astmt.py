"""The files of the two data sets in the layouts of ASTMT's authors: PASCAL-Context (PASCAL_MT) and NYUD_MT."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_ext.data.layouts.files import cleared, to_bytes, write_image, write_mat, write_npy
from mtl_ext.data.scenes import CLASSES, Scene
from mtl_ext.files import write_text

# For each of mtl_ext.data.scenes.CLASSES. Of the 40 classes of NYUv2, from 1: wall, floor, ceiling, pillow, box, lamp,
# other prop.
NYUD_IDS = np.array([1, 2, 22, 18, 29, 35, 40])
# Of the 21 classes of VOC: background three times, person, chair, television, bottle.
VOC_IDS = np.array([0, 0, 0, 15, 9, 20, 5])
# Of the 459 classes of PASCAL-Context: wall, floor, ceiling, person, chair, television, bottle.
CONTEXT_IDS = np.array([440, 158, 68, 284, 72, 427, 34])
IGNORE = 255
PERSON = CLASSES.index("ball")
PERSON_PARTS = {1: "torso", 2: "head"}


class NYUDMTWriter:
    """Writes the folders of NYUD_MT, as :func:`mtl_ext.data.nyud_mt` reads them."""

    size = (480, 640)
    splits: Mapping[str, int] = {"train": 795, "val": 654}

    def sample_id(self, split: str, index: int) -> str:
        """An id that is unique in all splits, which share their folders."""
        return f"{split}_{index:04d}"

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        name = self.sample_id(split, index)
        write_image(root / "images" / f"{name}.jpg", to_bytes(scene.rgb))
        segmentation = cleared(NYUD_IDS[scene.semantics], scene.edges, 0).astype(np.uint8)
        write_image(root / "segmentation" / f"{name}.png", segmentation)
        write_npy(root / "depth" / f"{name}.npy", cleared(scene.depth, scene.edges, 0))
        write_npy(root / "normals" / f"{name}.npy", cleared(scene.normals, scene.edges, 0))
        write_npy(root / "edge" / f"{name}.npy", scene.edges.astype(np.float32))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes the lists of the splits' samples."""
        for split, size in sizes.items():
            names = [self.sample_id(split, index) for index in range(size)]
            write_text(root / "gt_sets" / f"{split}.txt", "".join(f"{name}\n" for name in names))


class PascalContextWriter:
    """Writes the folders of PASCAL_MT, as :func:`mtl_ext.data.pascal_context` reads them.

    Balls stand for people: their lower half is a torso, the upper one a head. Even samples have their classes in
    semseg/VOC12, odd ones in semseg/pascal-context, as the release has some of either.
    """

    size = (512, 512)
    splits: Mapping[str, int] = {"train": 4998, "val": 5105}

    def sample_id(self, split: str, index: int) -> str:
        """An id as PASCAL's, unique in all splits, which share their folders."""
        return f"{2008 + list(self.splits).index(split)}_{index:06d}"

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        name = self.sample_id(split, index)
        write_image(root / "JPEGImages" / f"{name}.jpg", to_bytes(scene.rgb))
        segmentation = cleared(VOC_IDS[scene.semantics], scene.edges, IGNORE).astype(np.uint8)
        folder = "pascal-context" if index % 2 else "VOC12"
        write_image(root / "semseg" / folder / f"{name}.png", segmentation, palette=True)
        write_mat(root / "human_parts" / f"{name}.mat", {"anno": annotation(scene, name)})
        label_map = CONTEXT_IDS[scene.semantics].astype(np.uint16)
        write_mat(root / "pascal-context" / "trainval" / f"{name}.mat", {"LabelMap": label_map})
        write_image(root / "normals_distill" / f"{name}.png", to_bytes((scene.normals + 1.0) / 2.0))
        write_image(root / "sal_distill" / f"{name}.png", to_bytes(scene.saliency.astype(np.float64)))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes the lists of the splits' samples."""
        for split, size in sizes.items():
            names = [self.sample_id(split, index) for index in range(size)]
            write_text(root / "ImageSets" / "Context" / f"{split}.txt", "".join(f"{name}\n" for name in names))


def annotation(scene: Scene, image: str) -> dict[str, Any]:
    """The objects of a scene as a structure of PASCAL-Part: those that are seen, with the parts of people."""
    objects = []
    for number, kind in enumerate(scene.classes.tolist(), start=1):
        mask = scene.instances == number
        if not mask.any():
            continue
        found = [(name, mask & (scene.parts == part)) for part, name in PERSON_PARTS.items()] if kind == PERSON else []
        parts = [(name, seen.astype(np.uint8)) for name, seen in found if seen.any()]
        record = (CLASSES[kind], float(VOC_IDS[kind]), mask.astype(np.uint8), structs(("part_name", "mask"), parts))
        objects.append(record)
    return {"imname": image, "objects": structs(("class", "class_ind", "mask", "parts"), objects)}


def structs(fields: tuple[str, ...], records: list[tuple[Any, ...]]) -> np.ndarray:
    """A MATLAB array [1, n] of structures, or the empty matrix [0, 0] when there are none."""
    if not records:
        return np.zeros((0, 0))
    array = np.empty((1, len(records)), dtype=[(field, object) for field in fields])
    for place, record in enumerate(records):
        array[0, place] = record
    return array
