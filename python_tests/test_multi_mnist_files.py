"""Sener & Koltun's Multi-MNIST: composition from MNIST's files, and their processed files."""

import gzip
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mtl_ext.data import multi_mnist_files
from mtl_ext.data.multi_mnist_files import FILES, read_idx, write_digits, write_idx


@pytest.fixture
def raw_root(tmp_path, monkeypatch):
    """MNIST's four files with 5000 made-up digits."""
    rng = np.random.default_rng(0)
    digits = rng.integers(0, 256, (5000, 28, 28), dtype=np.uint8), np.repeat(np.arange(10), 500)
    monkeypatch.setattr(
        sys.modules["mtl_ext.data.multi_mnist_files"], "mnist_digits", lambda: tuple(map(torch.from_numpy, digits))
    )
    write_digits(tmp_path)
    return tmp_path, digits


def composed(left, right):
    """One composition as the published code makes it, with Pillow."""
    canvas = np.zeros((36, 36), np.uint8)
    canvas[:28, :28] = left
    canvas[6:34, 6:34] = np.maximum(canvas[6:34, 6:34], right)
    return np.asarray(Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST))


def test_files_of_mnist_hold_the_digits(raw_root):
    root, (images, labels) = raw_root
    for part, index in (("train", np.arange(5000) % 5 != 0), ("test", np.arange(5000) % 5 == 0)):
        image_file, label_file = FILES[part]
        assert np.array_equal(read_idx(root / "raw" / image_file, 3).numpy(), images[index])
        assert np.array_equal(read_idx(root / "raw" / label_file, 1).numpy(), labels[index])


def test_compositions_are_those_of_the_published_code(raw_root):
    root, (images, labels) = raw_root
    data = multi_mnist_files(str(root))
    assert (len(data.train), len(data.test)) == (4000, 1000)
    assert [task.name for task in data.tasks] == ["left", "right"]
    tests, digits = images[::5], labels[::5]
    batch = next(data.test.batches(20))
    assert batch.targets["left"].tolist() == digits[:20].tolist()
    pixels = (batch.inputs * 0.3081 + 0.1307) * 255
    for index in (0, 7, 19):
        matches = [
            j
            for j in range(1000)
            if np.array_equal(composed(tests[index], tests[j]), pixels[index, 0].round().byte().numpy())
        ]
        assert len(matches) == 1
        assert digits[matches[0]] == batch.targets["right"][index]
    again, other = multi_mnist_files(str(root)), multi_mnist_files(str(root), seed=1)
    assert torch.equal(data.train.images, again.train.images)
    assert not torch.equal(data.train.images, other.train.images)


def test_gzipped_files_in_the_root_itself_are_read_alike(raw_root):
    root, _ = raw_root
    before = multi_mnist_files(str(root)).test.images
    for path in (root / "raw").iterdir():
        (root / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    assert torch.equal(multi_mnist_files(str(root)).test.images, before)


def write_processed(root, count=6, **changes):
    generator = torch.Generator().manual_seed(0)
    parts = {
        "images": torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator),
        "left": torch.arange(count) % 10,
        "right": (torch.arange(count) + 3) % 10,
    } | changes
    for name in ("multi_training.pt", "multi_test.pt"):
        (root / "processed").mkdir(exist_ok=True)
        torch.save(tuple(parts.values()), root / "processed" / name)
    return parts


def test_processed_files_are_read_as_they_are(tmp_path):
    parts = write_processed(tmp_path)
    (batch,) = multi_mnist_files(str(tmp_path)).train.batches(6)
    expected = (parts["images"].double() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(batch.inputs[:, 0].double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(batch.targets["left"], parts["left"])
    assert torch.equal(batch.targets["right"], parts["right"])


class NotATensor:
    """What only code could make."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(6, 28, 28)}, r"torch.float32 \[6, 28, 28\].*expected uint8 \[M, 28, 28\]"),
        ({"left": torch.zeros(5)}, "labels"),
        ({"right": torch.full((6,), 10)}, "labels outside of 0 .. 9"),
        ({"images": NotATensor()}, r"multi_training.pt cannot be read"),
    ],
)
def test_broken_processed_files_are_named(tmp_path, changes, message):
    write_processed(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        multi_mnist_files(str(tmp_path))


def test_missing_and_broken_files_of_mnist_are_named(raw_root):
    root, _ = raw_root
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*train-images-idx3-ubyte.*processed/multi_training\.pt"):
        multi_mnist_files(str(root / "nowhere"))
    labels = root / "raw" / "t10k-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:500])
    with pytest.raises(
        ValueError, match=r"t10k-labels-idx1-ubyte cannot be read: it announces \[1000\] bytes, 492 follow"
    ):
        multi_mnist_files(str(root))
    labels.write_bytes(b"\x00\x00\x0d" + content[3:])
    with pytest.raises(ValueError, match="does not begin as an IDX file of bytes with 1 dimensions"):
        multi_mnist_files(str(root))
    write_idx(labels, np.full(1000, 10, np.uint8))
    with pytest.raises(ValueError, match="do not hold images of 28 x 28 and their digits"):
        multi_mnist_files(str(root))
