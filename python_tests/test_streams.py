"""Streams of tasks with their own inputs, and images in memory: cycling, resuming, augmentation."""

import pytest
import torch

from mtl_ext.data import MemorySplit, OwnInputSplit
from mtl_ext.data.images import ImageSplit


def make_split(task, count, start=0):
    values = torch.arange(start, start + count)
    return MemorySplit(values, {task: values * 10, "other": values})


def make_streams():
    return OwnInputSplit({"a": make_split("a", 10), "b": make_split("b", 4, 100), "c": make_split("c", 1, 200)})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def listed(batches):
    return [
        ({k: v.tolist() for k, v in batch.inputs.items()}, {k: v.tolist() for k, v in batch.targets.items()})
        for batch in batches
    ]


def test_a_pass_is_as_long_as_the_longest_stream_and_shorter_ones_cycle_in_fresh_orders():
    split = make_streams()
    assert len(split) == 10
    batches = list(split.batches(2, seeded()))
    assert len(batches) == 5
    samples = {task: torch.cat([batch.inputs[task] for batch in batches]).tolist() for task in "abc"}
    assert sorted(samples["a"]) == list(range(10))
    assert sorted(samples["b"][:4]) == sorted(samples["b"][4:8]) == [100, 101, 102, 103]
    assert len(samples["b"]) == 10
    assert samples["c"] == [200] * 5
    for batch in batches:
        assert set(batch.targets) == set("abc")
        for task in "abc":
            assert torch.equal(batch.targets[task], batch.inputs[task] * 10)


def test_every_round_of_a_shorter_stream_has_an_order_of_its_own():
    split = OwnInputSplit({"a": make_split("a", 60), "b": make_split("b", 20)})
    orders = [batch.inputs["b"].tolist() for seed in range(3) for batch in split.batches(20, seeded(seed))]
    assert len(orders) == len(set(map(tuple, orders))) == 9


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("with_generator", [True, False])
def test_a_pass_resumes_bit_for_bit_at_any_batch(batch_size, with_generator):
    split = make_streams()
    whole = listed(split.batches(batch_size, seeded() if with_generator else None))
    assert len(whole) == -(-10 // batch_size)
    for skip in range(len(whole) + 1):
        assert listed(split.batches(batch_size, seeded() if with_generator else None, skip)) == whole[skip:]


def test_a_pass_takes_the_same_draws_from_the_generator_wherever_it_starts():
    one, other = seeded(), seeded()
    list(make_streams().batches(2, one))
    make_streams().batches(2, other, skip=3)
    assert torch.equal(one.get_state(), other.get_state())


def test_without_a_generator_every_sample_comes_once_and_ended_streams_are_empty():
    batches = list(make_streams().batches(3))
    assert [batch.inputs["b"].tolist() for batch in batches] == [[100, 101, 102], [103], [], []]
    assert [batch.targets["c"].tolist() for batch in batches] == [[2000], [], [], []]
    assert [len(batch.inputs["a"]) for batch in batches] == [3, 3, 3, 1]


def test_streams_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="splits is empty"):
        OwnInputSplit({})
    with pytest.raises(ValueError, match="task 'b' has no samples"):
        OwnInputSplit({"a": make_split("a", 2), "b": make_split("b", 0)})
    with pytest.raises(KeyError, match="task 'b' has no target of that name, only a, other"):
        list(OwnInputSplit({"b": make_split("a", 2)}).batches(1))


def test_images_are_normalised_and_in_order_without_a_generator():
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4)
    split = ImageSplit(images, {"t": torch.tensor([5, 6])}, (0.5, 0.25, 0.0), (0.5, 1.0, 2.0), shift=2, flip=True)
    (batch,) = split.batches(2)
    mean, std = torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    expected = (images.double() / 255 - mean) / std
    torch.testing.assert_close(batch.inputs.double(), expected, rtol=0, atol=1e-6)
    assert batch.targets["t"].tolist() == [5, 6]


def test_augmented_images_are_shifted_crops_of_the_padded_image_and_half_are_mirrored():
    images = torch.randint(1, 256, (40, 2, 5, 6), dtype=torch.uint8, generator=seeded())
    split = ImageSplit(images, {"t": torch.arange(40)}, shift=2, flip=True)
    padded = torch.nn.functional.pad(images, [2] * 4)
    seen, mirrored = set(), 0
    for batch in split.batches(7, seeded(1)):
        assert batch.inputs.shape[1:] == (2, 5, 6)
        for image, index in zip((batch.inputs * 255).round().byte(), batch.targets["t"], strict=True):
            fits = [
                (y, x, flip)
                for y in range(5)
                for x in range(5)
                for flip in (False, True)
                for crop in [padded[index, :, y : y + 5, x : x + 6]]
                if torch.equal(image, crop.flip(-1) if flip else crop)
            ]
            assert len(fits) == 1
            seen.add(fits[0][:2])
            mirrored += fits[0][2]
    assert len(seen) > 15
    assert 10 < mirrored < 30


def test_augmented_passes_resume():
    split = ImageSplit(torch.randint(256, (9, 1, 4, 4), dtype=torch.uint8), {"t": torch.arange(9)}, shift=1, flip=True)
    whole, rest = (list(split.batches(2, seeded(), skip)) for skip in (0, 3))
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(whole[3:], rest, strict=True))
