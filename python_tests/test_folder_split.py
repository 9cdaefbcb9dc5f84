"""Splits of files: order, resuming, augmentation by seed, threads, messages."""

import threading

import pytest
import torch

from mtl_ext.data import FolderSplit

IDS = tuple(f"s{number}" for number in range(11))


def load(name):
    number = float(name[1:])
    return torch.full((1, 2, 2), number), {"x": torch.full((2, 2), number)}


def jitter(sample, fields, generator):
    image, targets = sample
    return image, {"x": targets["x"] + torch.rand((), generator=generator)}


def make(**options):
    return FolderSplit("train", IDS, load, augment=jitter, **options)


def values(batches):
    return [batch.targets["x"][:, 0, 0].tolist() for batch in batches]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_a_generator_samples_come_in_order_and_as_they_are():
    assert values(make().batches(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_a_pass_holds_every_sample_once_with_its_own_augmentation():
    found = [value for batch in values(make().batches(4, seeded())) for value in batch]
    assert sorted(int(value) for value in found) == list(range(11))
    assert len({value % 1 for value in found}) == 11


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_skipped_passes_and_threads_give_the_same_batches(skip, workers):
    whole = values(make().batches(4, seeded()))
    assert values(make(workers=workers).batches(4, seeded(), skip=skip)) == whole[skip:]


def test_skipped_samples_are_not_loaded():
    loaded = []
    split = FolderSplit("train", IDS, lambda name: loaded.append(name) or load(name))
    list(split.batches(4, skip=2))
    assert loaded == ["s8", "s9", "s10"]


def test_everything_random_is_drawn_before_the_first_batch():
    generator = seeded()
    one = make().batches(4, generator)
    two = make().batches(4, generator)
    assert values(two) != values(one)
    again = seeded()
    assert values(make().batches(4, again)) == values(make().batches(4, seeded()))
    assert torch.equal(generator.get_state(), (list(make().batches(4, again)), again)[1].get_state())


def test_prepare_comes_last_and_always():
    split = make(prepare=lambda sample, fields: (sample[0], {"x": sample[1]["x"].floor() * 10}))
    assert values(split.batches(11))[0] == [10.0 * number for number in range(11)]
    assert sorted(values(split.batches(11, seeded()))[0]) == [10.0 * number for number in range(11)]


def test_threads_stop_when_a_pass_is_left_or_a_sample_is_broken():
    def broken(name):
        if name == "s3":
            raise ValueError("the file of s3 is broken")
        return load(name)

    before = threading.active_count()
    pass_ = FolderSplit("train", IDS, broken, workers=2).batches(2)
    assert values([next(pass_)]) == [[0, 1]]
    with pytest.raises(ValueError, match="the file of s3 is broken"):
        next(pass_)
    left = make(workers=2).batches(2)
    next(left)
    left.close()
    assert threading.active_count() == before


def test_samples_of_different_shapes_are_named():
    split = FolderSplit("val", ("a", "b"), lambda name: (torch.zeros(3, 2, 2 if name == "a" else 3), {}))
    with pytest.raises(ValueError, match=r"val: the input of sample b has shape \[3, 2, 3\], that of sample a"):
        next(split.batches(2))


def test_bad_splits_are_refused():
    with pytest.raises(ValueError, match="'train' has no samples"):
        FolderSplit("train", (), load)
    with pytest.raises(ValueError, match="workers is -1"):
        make(workers=-1)
