"""Glyphs and Multi-CIFAR100: what is drawn, what its files hold, and what the loader refuses."""

import io
import os
import pickle
import pickletools
import re
from typing import ClassVar

import numpy as np
import pytest
import torch

from mtl_ext.data import DATASETS, cifar100, class_folder, glyphs
from mtl_ext.data.cifar100 import DOMAINS, FINE_NAMES, FINE_OF, MEAN, STD, RestrictedUnpickler, read_file
from mtl_ext.data.glyphs import GLYPH_LAYOUTS, GLYPHS, TEST_FONTS, TRAIN_FONTS, Glyph, make_glyph

# The table that the field's code carries: superclass of each of the 100 classes.
COARSE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]


def write(layout, root, sizes, size=32):
    writer, glyphs_of = GLYPH_LAYOUTS[layout], {}
    for part, (split, count) in enumerate(sizes.items()):
        glyphs_of[split] = [make_glyph(0, 1000 * part + index, size, size) for index in range(count)]
        for index, glyph in enumerate(glyphs_of[split]):
            writer.write(glyph, root, split, index)
    writer.finish(root, sizes)
    return glyphs_of


@pytest.fixture(scope="module")
def cifar_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar")
    write("cifar100", root, {"train": 200, "test": 100})
    return root


def raw(path):
    with path.open("rb") as file:
        return pickle.load(file)


def test_the_table_of_classes_is_the_official_one():
    assert len(FINE_NAMES) == 100
    assert sorted(FINE_OF.flatten().tolist()) == list(range(100))
    assert all(COARSE[fine] == coarse for coarse, row in enumerate(FINE_OF.tolist()) for fine in row)
    assert all(row == sorted(row) for row in FINE_OF.tolist())
    assert list(DOMAINS)[14] == "people"


def test_cifar_files_hold_20_tasks_of_their_own_images(cifar_root):
    data = cifar100(str(cifar_root))
    assert [task.name for task in data.tasks] == list(DOMAINS)
    assert {task.outputs for task in data.tasks} == {5}
    content = raw(cifar_root / "cifar-100-python" / "test")
    assert content["data"].shape == (100, 3072)
    (batch,) = data.test.batches(50)
    fine, images = np.array(content["fine_labels"]), content["data"].reshape(-1, 3, 32, 32)
    for k, name in enumerate(DOMAINS):
        index = np.flatnonzero(np.array(COARSE)[fine] == k)
        assert len(index) == 5
        expected = (images[index] / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
        np.testing.assert_allclose(batch.inputs[name].double().numpy(), expected, atol=1e-5)
        ranks = [sorted(f for f in range(100) if COARSE[f] == k).index(label) for label in fine[index]]
        assert batch.targets[name].tolist() == ranks
    assert [len(split) for split in data.train.splits.values()] == [10] * 20


def test_cifar_training_images_are_augmented_and_test_images_are_not(cifar_root):
    data = cifar100(str(cifar_root / "cifar-100-python"))
    assert {(split.shift, split.flip) for split in data.train.splits.values()} == {(4, True)}
    assert {(split.shift, split.flip) for split in data.test.splits.values()} == {(0, False)}
    batch = next(data.train.batches(4, torch.Generator().manual_seed(0)))
    assert all(inputs.shape == (4, 3, 32, 32) for inputs in batch.inputs.values())


class Python2Pickler(pickle._Pickler):
    """Writes strings and bytes as Python 2 did."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)

    dispatch[str] = dispatch[bytes] = save_string


def test_files_written_by_python_2_are_read_alike(cifar_root, tmp_path):
    content = raw(cifar_root / "cifar-100-python" / "test")
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    old = stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert "BINUNICODE" not in {opcode.name for opcode, _, _ in pickletools.genops(old)}
    (tmp_path / "test").write_bytes(old)
    images, fine = read_file(tmp_path / "test")
    assert torch.equal(images.reshape(100, -1), torch.from_numpy(content["data"]))
    assert fine.tolist() == content["fine_labels"]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_nothing_is_run(tmp_path):
    (tmp_path / "train").write_bytes(pickle.dumps({"data": Malicious(tmp_path / "broken_in"), "fine_labels": [1]}))
    with pytest.raises(ValueError, match=r"train is not a file of CIFAR-100: it names posix.mkdir, expected dicts"):
        cifar100(str(tmp_path))
    assert not (tmp_path / "broken_in").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "os.system", "numpy._core.multiarray.scalar"])
def test_the_unpickler_finds_nothing_but_arrays(name):
    module, attribute = name.rsplit(".", 1)
    with pytest.raises(pickle.UnpicklingError, match="it names"):
        RestrictedUnpickler(io.BytesIO(f"c{module}\n{attribute}\n.".encode())).load()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 3072), np.uint8)}, "fine_labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1, 100]}, "not a list of integers 0 .. 99"),
        ({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1]}, r"has shape \[2, 3072\], expected \[1, 3072\]"),
        ({"data": np.zeros((2, 3072)), "fine_labels": [1, 2]}, "array of type 'f8', expected 'u1'"),
        ([1, 2], "is not a file of CIFAR-100"),
    ],
)
def test_broken_cifar_files_are_named(tmp_path, content, message):
    (tmp_path / "train").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=message):
        cifar100(str(tmp_path))


def test_missing_and_truncated_cifar_files_are_named(cifar_root, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*train.*cifar-100-python/"):
        cifar100(str(tmp_path))
    (tmp_path / "train").write_bytes((cifar_root / "cifar-100-python" / "train").read_bytes()[:5000])
    with pytest.raises(ValueError, match=f"{tmp_path}/train is not a file of CIFAR-100"):
        cifar100(str(tmp_path))


def test_glyphs_form_20_domains_whose_test_fonts_are_of_other_families(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path))
    assert len(GLYPHS) == 20
    assert len({character for text in GLYPHS.values() for character in text}) == 100
    # A family is what stands before the style: DejaVuSans, DejaVuSerif; DejaVuSansMono, STIXGeneral.
    families = [{re.match(r"STIXGeneral|[A-Za-z]+", name)[0] for name in fonts} for fonts in (TRAIN_FONTS, TEST_FONTS)]
    assert [len(names) for names in families] == [2, 2]
    assert not families[0] & families[1]
    data = glyphs(10, 5)
    assert [task.name for task in data.tasks] == list(GLYPHS)
    batch = next(data.train.batches(10))
    for inputs in batch.inputs.values():
        assert inputs.shape == (10, 1, 36, 36)
        assert 0 <= inputs.min() <= inputs.max() <= 1
    assert batch.targets["greek_1"].tolist() == [0, 1, 2, 3, 4] * 2
    drawn = make_glyph(0, 20 * 3 + 7, 36, 36)  # the fourth image of the eighth domain
    name = list(GLYPHS)[7]
    np.testing.assert_array_equal((batch.inputs[name][3, 0] * 255).round().numpy(), drawn.draw("train"))
    monkeypatch.setattr(Glyph, "draw", None)  # not needed: the cache holds the images
    again = next(glyphs(10, 5).test.batches(5))
    assert torch.equal(again.inputs["signs_1"], next(data.test.batches(5)).inputs["signs_1"])


def test_glyphs_of_a_class_look_alike_and_differ_from_others():
    """The mean images of two draws of one class correlate more than those of two classes."""

    def mean_image(place, start):
        drawn = [make_glyph(0, 20 * (5 * i + place), 36, 36).draw("train") for i in range(start, start + 40)]
        images = [image.astype(float) for image in drawn]
        edges = [np.abs(image - np.median(image)) for image in images]
        return np.mean(edges, axis=0).ravel()

    first, second = [[mean_image(place, start) for place in range(5)] for start in (0, 40)]
    correlations = np.corrcoef(first, second)[:5, 5:]
    assert (correlations.argmax(axis=1) == np.arange(5)).all()


def test_glyphs_of_too_few_images_or_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train_size is 4, expected at least 5"):
        glyphs(4)
    with pytest.raises(ValueError, match="36 x 36 pixels, CIFAR-100's have 32 x 32"):
        GLYPH_LAYOUTS["cifar100"].write(make_glyph(0, 0, 36, 40), tmp_path, "train", 0)


def test_class_folders_are_read_with_the_protocol_of_imagenet(tmp_path):
    drawn = write("class_folder", tmp_path, {"train": 100, "val": 100}, size=48)
    data = class_folder(str(tmp_path), size=42)
    (task,) = data.tasks
    assert (task.name, task.outputs) == ("class", 100)
    classes = sorted(f"{name}_{place + 1}" for name in GLYPHS for place in range(5))
    (batch,) = data.test.batches(100)
    assert batch.inputs.shape == (100, 3, 42, 42)
    assert batch.targets["class"].tolist() == list(range(100))
    # 48 = 42 * 256 / 224: nothing is resized, and the middle 42 x 42 pixels are kept.
    glyph = next(g for g in drawn["val"] if f"{list(GLYPHS)[g.domain]}_{g.place + 1}" == classes[13])
    expected = glyph.draw("val")[3:45, 3:45] / 255.0
    mean, std = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])[:, :, None, None]
    expected = (expected - mean) / std
    np.testing.assert_allclose(batch.inputs[13].double().numpy(), expected, atol=1e-5)
    one, again, other = (next(data.train.batches(6, torch.Generator().manual_seed(s))) for s in (0, 0, 1))
    assert one.inputs.shape == (6, 3, 42, 42)
    assert torch.equal(one.inputs, again.inputs)
    assert not torch.equal(one.inputs, other.inputs)


def test_missing_and_broken_class_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no folder .*train.*root/train/\[class\]"):
        class_folder(str(tmp_path))
    write("class_folder", tmp_path, {"train": 40, "val": 21})
    with pytest.raises(ValueError, match=r"different classes; only one of them has .*capitals_2_2"):
        class_folder(str(tmp_path))
    write("class_folder", tmp_path, {"train": 40, "val": 40})
    broken = tmp_path / "val" / "capitals_1_1" / "0.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"capitals_1_1/0\.png cannot be read"):
        list(class_folder(str(tmp_path), 32).test.batches(40))


def test_all_data_sets_are_registered():
    names = {"glyphs", "cifar100", "class_folder", "faces", "celeba", "utkface", "qm9", "multi_mnist_files"}
    assert names <= set(DATASETS)
