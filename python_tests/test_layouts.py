"""Generators of data sets: every one writes the files of its published layout."""

import numpy as np
import pytest

from mtl_ext.data.layouts import SCENE_LAYOUTS
from mtl_ext.data.scenes import CLASSES, Scene

HEIGHT, WIDTH = 12, 16


def make_scene(seed, height=HEIGHT, width=WIDTH):
    """A scene of random pixels whose fields agree: two boxes, the second partly behind the first."""
    rng = np.random.default_rng(seed)
    amodal = np.zeros((2, height, width), dtype=bool)
    amodal[0, 2 : height - 3, 2 : width // 2 + 2] = True
    amodal[1, 3 : height - 1, width // 2 - 2 : width - 1] = True
    instances = np.where(amodal[0], 1, np.where(amodal[1], 2, 0)).astype(np.int16)
    classes = rng.integers(3, len(CLASSES), 2).astype(np.int16)
    semantics = np.where(instances > 0, classes[instances - 1], rng.integers(0, 3, (height, width))).astype(np.int16)
    normals = rng.normal(size=(height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    depth = rng.uniform(0.5, 4.0, (height, width)).astype(np.float32)
    hidden = [1 - (instances == k + 1).sum() / amodal[k].sum() for k in range(2)]
    boxes = []
    for mask in amodal:
        ys, xs = np.nonzero(mask)
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    focal, baseline = 0.8 * width, 0.1
    edges = np.zeros((height, width), dtype=bool)
    edges[:, 1:] |= instances[:, 1:] != instances[:, :-1]
    return Scene(
        rgb=rng.uniform(size=(height, width, 3)).astype(np.float32),
        depth=depth,
        normals=normals.astype(np.float32),
        semantics=semantics,
        parts=np.where(instances > 0, rng.integers(1, 3, (height, width)), 0).astype(np.int16),
        disparity=(focal * baseline / depth).astype(np.float32),
        instances=instances,
        amodal=amodal,
        classes=classes,
        occlusion=np.array(hidden, dtype=np.float32),
        boxes=np.array(boxes, dtype=np.int32),
        edges=edges,
        saliency=instances == 1,
        intrinsics=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
        baseline=baseline,
    )


def write_all(name, root, sizes):
    """Scenes of seeds 0, 1, ... written in a layout, split after split; returns them by split."""
    writer, seed, scenes = SCENE_LAYOUTS[name], 0, {}
    for split, size in sizes.items():
        scenes[split] = [make_scene(seed + i) for i in range(size)]
        seed += size
        for i, scene in enumerate(scenes[split]):
            writer.write(scene, root, split, i)
    writer.finish(root, sizes)
    return scenes


@pytest.mark.parametrize("name", SCENE_LAYOUTS)
def test_writing_twice_gives_the_same_files_and_leaves_no_temporary_ones(tmp_path, name):
    contents = []
    for folder in ("a", "b"):
        sizes = dict.fromkeys(SCENE_LAYOUTS[name].splits, 2)
        write_all(name, tmp_path / folder, sizes)
        files = [path for path in (tmp_path / folder).rglob("*") if path.is_file()]
        assert not [path for path in files if path.name.startswith(".")]
        contents.append({path.relative_to(tmp_path / folder): path.read_bytes() for path in files})
    assert contents[0] == contents[1]
