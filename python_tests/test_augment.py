"""Augmentations: what they keep, what they change, and where the published variants differ."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from mtl_ext.data.augment import CropZoom, MirrorTurnScale, ScaleCrop, warp
from mtl_ext.data.edges import label_edges, thin
from mtl_ext.data.fields import Field, look_up, mirror, resize
from mtl_ext.data.prepare import ResizeAndMark, center

HEIGHT, WIDTH = 24, 30
FIELDS = {
    "segmentation": Field(fill=-1),
    "depth": Field(fill=0, power=-1),
    "disparity": Field(fill=-1, power=1),
    "normals": Field(fill=0, vectors=True),
    "cells": Field(fill=0, cells=True),
}
BILINEAR = FIELDS | {"normals": Field(fill=0, interpolation="bilinear", vectors=True)}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def make_sample(seed=0):
    generator = seeded(seed)
    depth = 1 + torch.rand(1, HEIGHT, WIDTH, generator=generator)
    depth[0, 3, 4] = 0
    disparity = 5 / depth.clamp(min=1)
    disparity[0, 7, 7] = -1
    normals = functional.normalize(torch.randn(3, HEIGHT, WIDTH, generator=generator), dim=0)
    normals[:, 5, 6] = 0
    return torch.rand(3, HEIGHT, WIDTH, generator=generator), {
        "segmentation": torch.randint(-1, 5, (HEIGHT, WIDTH), generator=generator),
        "depth": depth,
        "disparity": disparity,
        "normals": normals,
        "cells": torch.rand(4, 4, 5, generator=generator),
        "class": torch.rand(10, generator=generator),
    }


def equal(first, second):
    return torch.equal(first[0], second[0]) and all(torch.equal(first[1][k], second[1][k]) for k in first[1])


CHANGES = {
    "crop_zoom": CropZoom(),
    "scale_crop": ScaleCrop(),
    "small_crop": ScaleCrop((12, 20), scales=(1.0,)),
    "large_crop": ScaleCrop((30, 36)),
    "mirror_turn_scale": MirrorTurnScale(),
}


def test_mirroring_twice_gives_the_sample_back_and_once_negates_the_x_of_normals():
    sample = make_sample()
    once = mirror(sample, FIELDS)
    assert equal(mirror(once, FIELDS), sample)
    assert torch.equal(once[1]["normals"][0], -sample[1]["normals"][0].flip(-1))
    assert torch.equal(once[1]["normals"][1:], sample[1]["normals"][1:].flip(-1))
    assert torch.equal(once[1]["segmentation"], sample[1]["segmentation"].flip(-1))
    assert torch.equal(once[1]["class"], sample[1]["class"])


@pytest.mark.parametrize("name", CHANGES)
def test_the_generator_decides_everything_and_the_sample_stays_as_it_is(name):
    sample, change = make_sample(), CHANGES[name]
    results = [change(sample, FIELDS, seeded(seed)) for seed in (0, 0, 1, 2)]
    assert equal(sample, make_sample())
    assert equal(results[0], results[1])
    assert not (equal(results[0], results[2]) and equal(results[0], results[3]))


@pytest.mark.parametrize("name", CHANGES)
def test_labels_stay_labels(name):
    for seed in range(12):
        image, targets = CHANGES[name](make_sample(), FIELDS, seeded(seed))
        size = {"small_crop": (12, 20), "large_crop": (30, 36)}.get(name, (HEIGHT, WIDTH))
        assert image.shape == (3, *size)
        assert all(targets[field].shape[-2:] == size for field in FIELDS if field != "cells")
        assert set(targets["segmentation"].unique().tolist()) <= set(range(-1, 5))
        assert targets["segmentation"].dtype == torch.int64
        lengths = targets["normals"].norm(dim=0)
        assert torch.all((lengths == 0) | ((lengths - 1).abs() < 1e-5))
        assert set(targets["cells"].flatten().tolist()) <= {0.0, *make_sample()[1]["cells"].flatten().tolist()}
        assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize("change", [CropZoom((1.5,)), ScaleCrop(scales=(1.5,)), MirrorTurnScale(0, (1.5,), True)])
def test_what_is_enlarged_is_nearer(change):
    for seed in range(4):
        _, targets = change(make_sample(), FIELDS, seeded(seed))
        known = (targets["depth"] > 0) & (targets["disparity"] > 0)
        product = (targets["depth"] * targets["disparity"])[known]
        assert torch.allclose(product, torch.full_like(product, 5.0))
        # Depths lie in [1, 2] metres before, and marks stay marks.
        assert targets["depth"][known].max() <= 2 / 1.5 + 1e-6
        assert set(targets["disparity"][targets["disparity"] <= 0].tolist()) <= {-1.0}


def test_scale_one_is_at_most_a_mirror():
    sample = make_sample()
    for change in (CropZoom((1.0,)), ScaleCrop(scales=(1.0,))):
        for seed in range(6):
            result = change(sample, FIELDS, seeded(seed))
            assert equal(result, sample) or equal((result[0].flip(-1), mirror(result, FIELDS)[1]), sample)


def test_crop_zoom_takes_a_part_and_aligns_corners():
    sample = make_sample()
    image, targets = CropZoom((1.5,))(sample, BILINEAR, seeded(3))
    h, w = int(HEIGHT / 1.5), int(WIDTH / 1.5)
    flips = [sample, mirror(sample, BILINEAR)]
    # The corners of the result are pixels of the image: find the part, then make it the slow way.
    matches = [
        (flip, top, left)
        for flip in flips
        for top in range(HEIGHT - h + 1)
        for left in range(WIDTH - w + 1)
        if torch.allclose(image[:, 0, 0], flip[0][:, top, left])
        and torch.allclose(image[:, -1, -1], flip[0][:, top + h - 1, left + w - 1])
    ]
    (flip, top, left) = matches[0]
    part = {name: flip[1][name][..., top : top + h, left : left + w] for name in ("normals", "segmentation", "depth")}
    expected = functional.interpolate(part["normals"][None], (HEIGHT, WIDTH), mode="bilinear", align_corners=True)[0]
    assert torch.allclose(targets["normals"], expected, atol=1e-6)
    rows, columns = torch.arange(HEIGHT) * h // HEIGHT, torch.arange(WIDTH) * w // WIDTH
    if flip is flips[1]:
        columns = w - 1 - columns.flip(0)
    assert torch.equal(targets["segmentation"], part["segmentation"][rows[:, None], columns])
    assert torch.allclose(targets["depth"], part["depth"][:, rows[:, None], columns] / 1.5)


def test_the_two_published_variants_differ_in_normals_between_surfaces():
    sample = make_sample()
    mtan = CropZoom((1.5,))(sample, BILINEAR, seeded(0))[1]["normals"]
    auto_lambda = ScaleCrop(scales=(1.5,))(sample, FIELDS, seeded(0))[1]["normals"]
    assert (mtan.norm(dim=0) < 0.9).float().mean() > 0.3
    lengths = auto_lambda.norm(dim=0)
    assert torch.all((lengths == 0) | ((lengths - 1).abs() < 1e-5))


def test_scale_crop_is_a_window_of_the_enlarged_image():
    sample = make_sample()
    image, targets = ScaleCrop((12, 20), scales=(1.2,))(sample, FIELDS, seeded(1))
    large = functional.interpolate(sample[0][None], (28, 36), mode="bilinear")[0]
    labels = resize(sample[1]["segmentation"], (28, 36))
    windows = [
        (top, left, flip)
        for top in range(17)
        for left in range(17)
        for flip in (False, True)
        if torch.equal(image.flip(-1) if flip else image, large[:, top : top + 12, left : left + 20])
    ]
    ((top, left, flip),) = windows
    found = targets["segmentation"].flip(-1) if flip else targets["segmentation"]
    assert torch.equal(found, labels[top : top + 12, left : left + 20])


def test_scale_crop_continues_an_image_that_is_too_small():
    sample = make_sample()
    for seed in range(4):
        image, targets = ScaleCrop((30, 36), scales=(1.0,))(sample, FIELDS, seeded(seed))
        if equal((image[..., :WIDTH], {}), (functional.pad(sample[0], (0, 0, 0, 6), mode="reflect"), {})):
            break
    else:
        pytest.fail("no seed without a mirror")
    assert torch.equal(image[:, HEIGHT:], image[:, HEIGHT - 7 : HEIGHT - 1].flip(1))
    for name, mark in (("segmentation", -1), ("depth", 0), ("disparity", -1), ("normals", 0)):
        assert torch.all(targets[name][..., HEIGHT:, :] == mark)
        assert torch.all(targets[name][..., :, WIDTH:] == mark)


def test_warp_turns_anticlockwise_and_normals_turn_with_the_image():
    values = torch.arange(25.0).reshape(5, 5)
    # About (2.5, 2.5), a quarter turn anticlockwise moves the pixel (x, y) to (y, 5 - x).
    turned = warp(values, math.pi / 2, 1.0, "nearest", -1.0)
    for x in range(1, 5):
        for y in range(5):
            assert turned[5 - x, y] == values[y, x]
    assert torch.all(turned[0] == -1)
    normals = torch.zeros(3, 9, 9)
    normals[0] = 1  # to the right
    change = MirrorTurnScale(angle=90.0, scales=(1.0,), listed=True)
    for seed in range(5):
        generator = seeded(seed)
        mirrored = torch.rand((), generator=generator, dtype=torch.float64) < 0.5
        angle = math.radians(90 * (2 * torch.rand((), generator=generator, dtype=torch.float64).item() - 1))
        _, targets = change((torch.rand(3, 9, 9), {"normals": normals}), {"normals": FIELDS["normals"]}, seeded(seed))
        sign = -1 if mirrored else 1
        # y points down, so anticlockwise is up.
        expected = torch.tensor([sign * math.cos(angle), -sign * math.sin(angle), 0.0])
        assert torch.allclose(targets["normals"][:, 4, 4], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["crop_zoom", "scale_crop", "small_crop", "mirror_turn_scale"])
def test_cells_lie_where_the_pixels_do(name):
    # Each cell holds its number; so does every pixel of a label map over the same grid.
    numbers = torch.arange(1.0, 21.0).reshape(1, 4, 5)
    pixels = numbers.repeat_interleave(6, 1).repeat_interleave(6, 2)
    fields = {"pixels": Field(fill=0), "cells": Field(fill=0, cells=True)}
    for seed in range(10):
        _, targets = CHANGES[name]((pixels.repeat(3, 1, 1), {"pixels": pixels, "cells": numbers}), fields, seeded(seed))
        rows, columns = targets["cells"].shape[-2:]
        height, width = targets["pixels"].shape[-2:]
        assert (rows, columns) == ((2, 3) if name == "small_crop" else (4, 5))
        middle = targets["pixels"][
            :,
            ((torch.arange(rows) + 0.5) * height / rows).long()[:, None],
            ((torch.arange(columns) + 0.5) * width / columns).long(),
        ]
        # A cell's centre may fall on the border of two cells; pixels are half a pixel off.
        assert (middle == targets["cells"]).float().mean() > 0.7


def test_look_up_fills_what_lies_outside():
    cells = torch.tensor([[1, 2], [3, 4]])
    assert look_up(cells, torch.eye(2, 3), (2, 2), 0).tolist() == [[1, 2], [3, 4]]
    assert look_up(cells, torch.tensor([[-1.0, 0, 1], [0, 1, 0]]), (2, 2), 0).tolist() == [[2, 1], [4, 3]]
    assert look_up(cells, torch.tensor([[1.0, 0, 0.5], [0, 1, 0]]), (2, 2), 0).tolist() == [[2, 0], [4, 0]]


def test_resize_and_mark_gives_unit_normals_and_marks():
    image = torch.tensor([0.0, 255.0])[None, :, None].expand(3, 2, 2)
    normals = torch.tensor([[[2.0, 0.0], [0.5, 0.0]], [[0.0, 0.0], [0.5, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    parts, depth = torch.zeros(2, 2, dtype=torch.int64), torch.tensor([[[0.0, 2.0], [3.0, 4.0]]])
    fields = {"normals": Field(fill=0, vectors=True), "parts": Field(fill=0), "depth": Field(fill=0)}
    prepare = ResizeAndMark((4, 4), zeros=("depth",), all_zeros=("parts",))
    small = ResizeAndMark((2, 2), zeros=("depth",), all_zeros=("parts",))
    targets = {"normals": normals, "parts": parts, "depth": depth}
    prepared, marked = small((image, targets), fields)
    assert marked["normals"][:, 0, 0].tolist() == [1, 0, 0]
    assert marked["normals"][:, 1, 0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    assert torch.all(marked["normals"][:, :, 1] == 255)
    assert torch.all(marked["parts"] == 255)
    assert marked["depth"].tolist() == [[[255, 2], [3, 4]]]
    assert prepared[:, 0, 0].tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert prepared[:, 1, 0].tolist() == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])
    _, kept = small((image, targets | {"parts": torch.eye(2).long()}), fields)
    assert kept["parts"].tolist() == [[1, 0], [0, 1]]
    larger, labels = prepare((image, targets), fields)
    assert larger.shape == (3, 4, 4)
    assert labels["depth"].tolist() == [[[255, 255, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2]


def test_center_maps_zero_and_one_to_minus_one_and_one():
    image, targets = center((torch.tensor([0.0, 0.5, 1.0]), {"a": torch.ones(1)}), {})
    assert image.tolist() == [-1, 0, 1]
    assert targets["a"] == 1


def test_label_edges_are_thin_lines_between_regions():
    labels = np.zeros((9, 12), dtype=np.uint16)
    labels[:, 6:] = 400
    edges = label_edges(labels)
    assert edges.sum(axis=1).tolist()[1:-1] == [1] * 7
    assert edges[:, :5].sum() == edges[:, 8:].sum() == 0
    assert not label_edges(np.full((4, 4), 7)).any()


def test_thinning_keeps_lines_and_their_connections():
    line = np.zeros((7, 9), dtype=bool)
    line[3, 1:8] = True
    assert np.array_equal(thin(line), line)
    bar = np.zeros((11, 20), dtype=bool)
    bar[3:8, 2:18] = True
    thinned = thin(bar)
    assert thinned.sum(axis=0).max() == 1
    assert thinned[5, 5:15].all()
    ring = np.zeros((15, 15), dtype=bool)
    ring[2:13, 2:13] = True
    ring[6:9, 6:9] = False
    thinned = thin(ring)
    assert thinned[7, 7] == 0
    # A closed line of one pixel: the middle is still cut off from the outside.
    assert 12 <= thinned.sum() <= 32
    assert np.array_equal(thin(thinned), thinned)
    assert not thin(np.zeros((3, 3), dtype=bool)).any()
