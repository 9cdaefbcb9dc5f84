"""The files of MetaGraspNet's simulated part."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mtl_ext.data.layouts.files import cleared, to_bytes, write_image, write_npz
from mtl_ext.data.scenes import Scene
from mtl_ext.files import write_text

CM = 100.0


class MetaGraspNetWriter:
    """Writes dataset_sim, as :func:`mtl_ext.data.metagraspnet` reads it: scenes of one view, and lists of the splits.

    The HDF5 files with grasps and poses and the layer orders are not written: no loader here reads them.
    """

    size = (1200, 1944)
    # The published scenes are not divided; these numbers are ours.
    splits: Mapping[str, int] = {"train": 900, "test": 100}

    def sample_id(self, split: str, index: int) -> str:
        """The only view of a scene whose number tells the split as well."""
        return f"{self._scene(split, index)}/0"

    def write(self, scene: Scene, root: Path, split: str, index: int) -> None:
        """Writes one sample, see :meth:`LayoutWriter.write`."""
        folder = root / "dataset_sim" / self._scene(split, index)
        write_image(folder / "0_rgb.png", to_bytes(scene.rgb))
        classes = np.concatenate(([0], scene.classes))
        shares = np.concatenate(([0.0], scene.occlusion))
        write_npz(
            folder / "0.npz",
            depth=cleared(CM * scene.depth, scene.edges, np.nan).astype(np.float32),
            instances_objects=scene.instances.astype(np.uint8),
            instances_semantic=classes[scene.instances].astype(np.uint8),
            occlusion=shares[scene.instances].astype(np.float32),
            seg_masks_single=scene.amodal.astype(np.uint8),
        )
        height, width = scene.depth.shape
        camera = {
            "fx": float(scene.intrinsics[0, 0]),
            "fy": float(scene.intrinsics[1, 1]),
            "cx": float(scene.intrinsics[0, 2]),
            "cy": float(scene.intrinsics[1, 2]),
            "width": width,
            "height": height,
        }
        write_text(folder / "0_camera_params.json", json.dumps(camera))

    def finish(self, root: Path, sizes: Mapping[str, int]) -> None:
        """Writes the lists of the splits' scenes."""
        for split, size in sizes.items():
            names = [self._scene(split, index) for index in range(size)]
            write_text(root / "dataset_sim" / f"{split}.txt", "".join(f"{name}\n" for name in names))

    def _scene(self, split: str, index: int) -> str:
        return f"scene{len(self.splits) * index + list(self.splits).index(split)}"
