"""Generators of data sets: every one writes the files of its published layout."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from scene_cases import make_scene, write_all

from mtl_ext.data.layouts import SCENE_LAYOUTS, PseudoLabelWriter
from mtl_ext.data.layouts.pseudo_labels import COCO_IDS


def files_of(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


def digests(root):
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files_of(root)}


@pytest.mark.parametrize("name", SCENE_LAYOUTS)
def test_writing_twice_gives_the_same_files_and_leaves_no_temporary_ones(tmp_path, name):
    contents = []
    for folder in ("a", "b"):
        sizes = dict.fromkeys(SCENE_LAYOUTS[name].splits, 2)
        write_all(name, tmp_path / folder, sizes)
        contents.append(digests(tmp_path / folder))
        assert not [file for file in contents[-1] if file.rpartition("/")[2].startswith(".")]
    assert contents[0] == contents[1]


PUBLISHED = {
    "nyuv2": [f"{split}/{part}/0.npy" for split in ("train", "val") for part in ("depth", "image", "label", "normal")],
    "cityscapes": [f"{split}/{part}/0.npy" for split in ("train", "val") for part in ("depth", "image", "label_7")],
    "cityscapes_png": [
        f"{split}/{part}"
        for split in ("train", "val")
        for part in ("depth/0.png", "image/0.png", "part_seg/0.tif", "seg/0.png")
    ],
    "pascal_context": [
        "ImageSets/Context/train.txt",
        "ImageSets/Context/val.txt",
        *(f"JPEGImages/{name}.jpg" for name in ("2008_000000", "2009_000000")),
        *(
            f"{part}/{name}.{ending}"
            for part, ending in (("human_parts", "mat"), ("normals_distill", "png"), ("pascal-context/trainval", "mat"))
            for name in ("2008_000000", "2009_000000")
        ),
        *(f"{part}/{name}.png" for part in ("sal_distill", "semseg/VOC12") for name in ("2008_000000", "2009_000000")),
    ],
    "nyud_mt": [
        *(
            f"{part}/{name}.{ending}"
            for part, ending in (("depth", "npy"), ("edge", "npy"), ("images", "jpg"), ("normals", "npy"))
            for name in ("train_0000", "val_0000")
        ),
        *("gt_sets/train.txt", "gt_sets/val.txt", "segmentation/train_0000.png", "segmentation/val_0000.png"),
    ],
    "metagraspnet": [
        *(f"dataset_sim/scene{n}/0{ending}" for n in (0, 1) for ending in (".npz", "_camera_params.json", "_rgb.png")),
        *("dataset_sim/test.txt", "dataset_sim/train.txt"),
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_lie_where_the_published_ones_do(tmp_path, name):
    write_all(name, tmp_path, dict.fromkeys(SCENE_LAYOUTS[name].splits, 1))
    assert files_of(tmp_path) == sorted(PUBLISHED[name])


def test_published_sizes_and_numbers_of_samples():
    found = {name: (writer.size, tuple(writer.splits.values())) for name, writer in SCENE_LAYOUTS.items()}
    assert found["nyuv2"] == ((288, 384), (795, 654))
    assert found["cityscapes_png"] == ((256, 512), (2975, 500))
    assert found["pascal_context"] == ((512, 512), (4998, 5105))
    assert found["nyud_mt+pseudo"] == found["nyud_mt"] == ((480, 640), (795, 654))


def test_number_formats_are_the_published_ones(tmp_path):
    write_all("nyuv2", tmp_path / "nyu", {"train": 1})
    shapes = {
        part: np.load(tmp_path / "nyu" / "train" / part / "0.npy") for part in ("image", "label", "depth", "normal")
    }
    assert {part: (array.dtype.name, array.shape) for part, array in shapes.items()} == {
        "image": ("float32", (12, 16, 3)),
        "label": ("int64", (12, 16)),
        "depth": ("float32", (12, 16, 1)),
        "normal": ("float32", (12, 16, 3)),
    }
    write_all("cityscapes_png", tmp_path / "cs", {"train": 1})
    modes = {
        part: mode_of(tmp_path / "cs" / "train" / part)
        for part in ("image/0.png", "seg/0.png", "depth/0.png", "part_seg/0.tif")
    }
    assert modes == {"image/0.png": "RGB", "seg/0.png": "L", "depth/0.png": "I;16", "part_seg/0.tif": "I"}
    write_all("pascal_context", tmp_path / "pascal", {"train": 1})
    assert mode_of(tmp_path / "pascal" / "semseg" / "VOC12" / "2008_000000.png") == "P"


def test_pseudo_labels_are_mostly_right_and_never_sure(tmp_path):
    writer = PseudoLabelWriter(SCENE_LAYOUTS["nyuv2"])
    scenes = [make_scene(seed, 128, 160) for seed in range(6)]
    right = total = 0
    for index, scene in enumerate(scenes):
        writer.write(scene, tmp_path, "train", index)
        with np.load(tmp_path / "pseudo" / "train" / f"{index}.npz") as arrays:
            assert arrays["cls"].sum(dtype=np.float64) == pytest.approx(1, abs=0.005)
            assert arrays["cls"].max() < 0.95
            assert arrays["tokens"].shape == arrays["token_scores"].shape == (4, 5, 5)
            right += (arrays["seg"] == COCO_IDS[scene.semantics]).sum()
            total += arrays["seg"].size
    assert 0.6 < right / total < 0.95
