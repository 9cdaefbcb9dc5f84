"""Dense data sets that are missing, incomplete or broken: the message says what was looked for, or names the file."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scene_cases import HEIGHT, WIDTH, write_all
from test_dense_data import LOADERS

from mtl_ext.data import cityscapes_png, metagraspnet, nyuv2, pascal_context
from mtl_ext.data.extra_tasks import with_noise, with_pseudo_labels
from mtl_ext.data.layouts.files import write_mat
from mtl_ext.data.reading import labels, numbers, read_npy, read_npz
from mtl_ext.data.task import MultiTaskData

# A published data set: (a folder or a list that the loader needs at once, a line of the layout in its message).
NEEDED = {
    "nyuv2": ("train/label", "{train,val}/depth/{0, 1, ...}.npy    [H, W, 1], metres"),
    "cityscapes": ("val/label_7", "{train,val}/label_7/{0, 1, ...}.npy"),
    "cityscapes_png": ("val/seg", "{train,val}/part_seg/{0, 1, ...}.tif   panoptic-parts uids"),
    "pascal_context": ("human_parts", "pascal-context/trainval/{id}.mat          `LabelMap`"),
    "nyud_mt": ("gt_sets/val.txt", "segmentation/{id}.png     1 + class, classes 0 .. 39"),
    "metagraspnet": ("dataset_sim/scene0", "dataset_{sim,real}/scene{n}/{view}_rgb.png"),
}


def write(name, root):
    write_all(name, root, {"train": 2, "test" if name == "metagraspnet" else "val": 1})


@pytest.mark.parametrize("name", NEEDED)
def test_a_folder_that_does_not_exist_is_named_with_the_whole_layout(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"there is no (folder|file) .*nowhere") as error:
        LOADERS[name](str(tmp_path / "nowhere"))
    assert "The layout must be\nROOT/" in str(error.value)
    assert f"\nROOT/{NEEDED[name][1]}" in str(error.value)


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_part_is_found_before_training(tmp_path, name):
    write(name, tmp_path)
    path = tmp_path / NEEDED[name][0]
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{NEEDED[name][0].replace('label_7', 'label_7 or .*label')}"):
        LOADERS[name](str(tmp_path))


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes", "cityscapes_png"])
def test_a_number_that_is_left_out_is_named(tmp_path, name):
    write(name, tmp_path)
    ending = "png" if name == "cityscapes_png" else "npy"
    (tmp_path / "train" / "image" / f"0.{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"train/image holds 1 \.{ending} files, but no 0\.{ending}"):
        LOADERS[name](str(tmp_path))
    (tmp_path / "train" / "image" / f"1.{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"train/image holds no \.{ending} file"):
        LOADERS[name](str(tmp_path))


def sample_files(name, root):
    """Every file that belongs to the first training sample."""
    keys = {"pascal_context": "2008_000000", "nyud_mt": "train_0000", "metagraspnet": "dataset_sim/scene0/0"}
    if name in keys:
        found = [path for path in root.rglob("*") if keys[name] in path.as_posix()]
        return [path for path in found if path.is_file() and "camera" not in path.name]
    return [path for path in (root / "train").rglob("0.*") if path.is_file()]


@pytest.mark.parametrize("name", LOADERS)
def test_every_broken_or_missing_file_of_a_sample_is_named(tmp_path, name):
    write(name, tmp_path)
    paths = sample_files(name, tmp_path)
    assert len(paths) >= 2
    for path in paths:
        content = path.read_bytes()
        for broken in (b"", b"not data at all", content[: len(content) // 2]):
            path.write_bytes(broken)
            with pytest.raises((ValueError, FileNotFoundError), match=path.name):
                list(LOADERS[name](str(tmp_path)).train.batches(2))
        path.unlink()
        with pytest.raises(FileNotFoundError, match=path.stem.removesuffix("_rgb")):
            list(LOADERS[name](str(tmp_path)).train.batches(2))
        path.write_bytes(content)
    assert len(list(LOADERS[name](str(tmp_path)).train.batches(2))) == 1


# Content of a file of NYUv2 that can be read but is not what it should be.
WRONG_ARRAYS = {
    "pickle": ("image", np.array([{}]), "cannot be read: Object arrays cannot be loaded"),
    "text": ("image", np.array(["a"]), "holds <U1, expected numbers"),
    "channels first": ("image", np.zeros((3, HEIGHT, WIDTH)), r"has shape \[3, 12, 16\], expected \['any', 'any', 3\]"),
    "bytes": ("image", np.full((HEIGHT, WIDTH, 3), 255), r"holds values from 255 to 255, expected them in \[0, 1\]"),
    "nan": ("depth", np.full((HEIGHT, WIDTH, 1), np.nan), "holds NaN or infinite values"),
    "negative depth": ("depth", np.full((HEIGHT, WIDTH, 1), -1.0), "holds values from -1 to -1"),
    "no channel": ("depth", np.ones((HEIGHT, WIDTH)), r"has shape \[12, 16\], expected \['any', 'any', 1\]"),
    "40 classes": ("label", np.full((HEIGHT, WIDTH), 39), r"holds the label 39, expected 0 \.\. 12, or -1"),
    "other mark": ("label", np.full((HEIGHT, WIDTH), 255), "holds the label 255"),
    "fraction": ("label", np.full((HEIGHT, WIDTH), 0.5), r"holds the label 0\.5"),
    "long normals": ("normal", np.full((HEIGHT, WIDTH, 3), 2.0), "holds values from 2 to 2"),
    "other size": ("label", np.zeros((HEIGHT, WIDTH + 1)), r"segmentation has \[12, 17\] pixels, the image \[12, 16\]"),
}


@pytest.mark.parametrize("case", WRONG_ARRAYS)
def test_wrong_arrays_are_refused(tmp_path, case):
    part, array, message = WRONG_ARRAYS[case]
    write("nyuv2", tmp_path)
    np.save(tmp_path / "train" / part / "1.npy", array)
    with pytest.raises(ValueError, match=message) as error:
        list(nyuv2(str(tmp_path)).train.batches(2))
    assert f"{part}/1.npy" in str(error.value) or "sample 1 of" in str(error.value)


def test_wrong_images_are_refused(tmp_path):
    write("cityscapes_png", tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "train" / "seg" / "0.png")
    with pytest.raises(ValueError, match=r"seg/0\.png has 3 channels, expected one number per pixel"):
        list(cityscapes_png(str(tmp_path), (8, 8)).train.batches(2))
    Image.new("L", (5, 5)).save(tmp_path / "train" / "seg" / "0.png")
    with pytest.raises(ValueError, match=r"segmentation has \[5, 5\] pixels, the image \[12, 16\]"):
        list(cityscapes_png(str(tmp_path), (8, 8)).train.batches(2))


def test_wrong_matlab_files_are_refused(tmp_path):
    write("pascal_context", tmp_path)
    data = pascal_context(str(tmp_path), (HEIGHT, WIDTH))
    maps, parts = tmp_path / "pascal-context" / "trainval", tmp_path / "human_parts"
    good = (maps / "2008_000000.mat").read_bytes(), (parts / "2008_000000.mat").read_bytes()
    for variables, message in (
        ({"other": np.zeros(3)}, "does not hold the variable LabelMap"),
        ({"LabelMap": np.zeros((2, 2))}, r"LabelMap is float64 \[2, 2\], expected integers \[H, W\]"),
        ({"LabelMap": np.zeros((2, 2), dtype=np.uint8)}, r"has \[12, 16\] pixels, its LabelMap \[2, 2\]"),
    ):
        write_mat(maps / "2008_000000.mat", variables)
        with pytest.raises(ValueError, match=message) as error:
            list(data.train.batches(2))
        assert "2008_000000" in str(error.value)
    (maps / "2008_000000.mat").write_bytes(good[0])
    write_mat(parts / "2008_000000.mat", {"anno": np.zeros(3)})
    with pytest.raises(ValueError, match=r"human_parts/2008_000000\.mat cannot be read"):
        list(data.train.batches(2))


def test_an_unknown_part_of_a_person_is_named(tmp_path):
    from mtl_ext.data.layouts.astmt import structs

    write("pascal_context", tmp_path)
    mask = np.ones((HEIGHT, WIDTH), dtype=np.uint8)
    part = structs(("part_name", "mask"), [("tail", mask)])
    person = structs(("class", "class_ind", "mask", "parts"), [("person", 15.0, mask, part)])
    write_mat(tmp_path / "human_parts" / "2008_000000.mat", {"anno": {"imname": "x", "objects": person}})
    with pytest.raises(ValueError, match=r"2008_000000\.mat .*a person has the part 'tail', expected one of hair"):
        list(pascal_context(str(tmp_path), (HEIGHT, WIDTH)).train.batches(2))


def test_wrong_lists_are_refused(tmp_path):
    write("pascal_context", tmp_path)
    path = tmp_path / "ImageSets" / "Context" / "train.txt"
    for text, message in (("", "is empty"), ("a\nb\na\n", "names the sample a twice")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"train.txt {message}"):
            pascal_context(str(tmp_path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"train\.txt cannot be read"):
        pascal_context(str(tmp_path))
    path.write_text("2008_000000\n")
    parts = tmp_path / "ImageSets" / "Parts" / "train.txt"
    parts.parent.mkdir()
    for text, message in (("{", "cannot be read"), ("[]", "holds no mapping"), ('{"a": 1}', "holds no mapping")):
        parts.write_text(text)
        with pytest.raises(ValueError, match=rf"Parts/train\.txt {message}"):
            pascal_context(str(tmp_path))


def test_wrong_piles_are_refused(tmp_path):
    write("metagraspnet", tmp_path)
    path = tmp_path / "dataset_sim" / "scene0" / "0.npz"
    with pytest.raises(ValueError, match=r"scene0/0\.npz holds 2 objects, more than max_objects = 1"):
        list(metagraspnet(str(tmp_path), max_objects=1).train.batches(1))
    with np.load(path) as arrays:
        content = dict(arrays)
    np.savez(path, **{name: array for name, array in content.items() if name != "seg_masks_single"})
    with pytest.raises(ValueError, match="it holds no occlusion_objects or seg_masks_single, only depth, "):
        list(metagraspnet(str(tmp_path)).train.batches(1))
    np.savez(path, **content | {"instances_objects": content["instances_objects"] * 2})
    with pytest.raises(ValueError, match=r"0\.npz: instances_objects holds 4, but there are 2 outlines"):
        list(metagraspnet(str(tmp_path)).train.batches(1))
    with pytest.raises(ValueError, match="part is 'both', expected one of 'sim', 'real'"):
        metagraspnet(str(tmp_path), part="both")
    (tmp_path / "dataset_sim" / "test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*dataset_sim/test\.txt"):
        metagraspnet(str(tmp_path))
    (tmp_path / "dataset_sim" / "train.txt").unlink()
    shutil.rmtree(tmp_path / "dataset_sim" / "scene0")
    shutil.rmtree(tmp_path / "dataset_sim" / "scene1")
    with pytest.raises(FileNotFoundError, match=r"dataset_sim holds 1 folders scene\{n\}, expected at least 2"):
        metagraspnet(str(tmp_path))


def test_wrong_pseudo_labels_are_refused(tmp_path):
    write("nyuv2+pseudo", tmp_path)
    data = nyuv2(str(tmp_path), pseudo_labels=True)
    path = tmp_path / "pseudo" / "train" / "1.npz"
    with np.load(path) as arrays:
        content = dict(arrays)
    for change, message in (
        ({"seg": np.full((HEIGHT, WIDTH), 80, dtype=np.uint8)}, r"holds the label 80, expected 0 \.\. 79, or 255"),
        ({"seg": np.zeros((4, 4), dtype=np.uint8)}, r"has shape \[4, 4\], expected \[12, 16\]"),
        ({"cls": np.full(1000, 0.5)}, "cls sums to 500, expected 1"),
        ({"cls": np.ones(80)}, r"has shape \[80\], expected \[1000\]"),
        ({"tokens": content["tokens"] + 2000}, "holds the label"),
        ({"token_scores": content["token_scores"][..., :4]}, r"has shape \[1, 1, 4\], expected \[1, 1, 5\]"),
        ({"token_scores": content["token_scores"] + 2}, r"expected them in \[0, 1\]"),
    ):
        np.savez(path, **content | change)
        with pytest.raises(ValueError, match=message) as error:
            list(data.train.batches(2))
        assert "pseudo/train/1.npz" in str(error.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"pseudo/train/1\.npz is missing"):
        list(data.train.batches(2))
    shutil.rmtree(tmp_path / "pseudo")
    with pytest.raises(FileNotFoundError, match=r"pseudo labels: there is no folder .*pseudo/train(.|\n)*token_scores"):
        nyuv2(str(tmp_path), pseudo_labels=True)


def test_only_splits_of_files_take_more_tasks(tmp_path):
    from small_data import make_data

    data = make_data()
    assert isinstance(data, MultiTaskData)
    with pytest.raises(TypeError, match=r"data\.train is a MemorySplit, expected a FolderSplit"):
        with_noise(data)
    with pytest.raises(TypeError, match="expected a FolderSplit"):
        with_pseudo_labels(data, tmp_path)


def test_archives_and_empty_arrays_are_no_arrays(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(2))
    with pytest.raises(ValueError, match=r"a\.npy holds an archive of arrays, expected one array"):
        read_npy(path, (None,))
    with path.open("wb") as file:
        np.save(file, np.zeros(2))
    with pytest.raises(ValueError, match=r"a\.npy cannot be read: it holds one array, expected an archive"):
        read_npz(path, "a")
    with pytest.raises(ValueError, match=r"has shape \[0\], expected \['any'\]"):
        numbers(path, np.zeros(0), (None,))
    assert labels(path, torch.tensor([-1.0, 2.0]), 3, -1).tolist() == [-1, 2]


def test_without_an_optional_library_the_message_says_what_to_install(tmp_path, monkeypatch):
    write("pascal_context", tmp_path)
    data = pascal_context(str(tmp_path), (HEIGHT, WIDTH))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r'MATLAB files need scipy: pip install "mtl_ext\[eval\]"'):
        list(data.train.batches(2))
    with pytest.raises(ImportError, match=r'MATLAB files need scipy: pip install "mtl_ext\[eval\]"'):
        write("pascal_context", tmp_path / "new")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'image files need Pillow: pip install "mtl_ext\[train\]"'):
        list(data.train.batches(2))
    with pytest.raises(ImportError, match=r'image files need Pillow: pip install "mtl_ext\[train\]"'):
        write("nyud_mt", tmp_path / "new")


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, mtl_ext.data, mtl_ext.data.layouts; print([m for m in ('PIL', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
