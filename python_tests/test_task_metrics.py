"""The tasks' metrics, each against a count of its own in float64 numpy, over batches of different sizes."""

import itertools
import math

import numpy as np
import pytest
import torch

from mtl_ext.metrics import (
    AbsoluteError,
    Accuracy,
    BinaryAccuracy,
    MaxIoU,
    MeanAngle,
    MeanIoU,
    MedianAngle,
    OdsF,
    PixelAccuracy,
    RelativeError,
    RootMeanSquareError,
    WithinAngle,
)

CUTS = (0, 2, 3, 7)  # batches of 2, 1 and 4 samples


def measured(metric, output, target):
    """The metric over three batches."""
    for begin, end in itertools.pairwise(CUTS):
        metric.update(torch.as_tensor(output[begin:end]), torch.as_tensor(target[begin:end]))
    return metric.compute()


def batch_values(measure, output, target):
    """A measure of each batch, with the batches' numbers of samples."""
    pairs = list(itertools.pairwise(CUTS))
    return [measure(output[a:b], target[a:b]) for a, b in pairs], [b - a for a, b in pairs]


ALL = [
    Accuracy,
    PixelAccuracy,
    BinaryAccuracy,
    lambda: MeanIoU(3),
    AbsoluteError,
    RelativeError,
    RootMeanSquareError,
    MeanAngle,
    MedianAngle,
    lambda: WithinAngle(30),
    MaxIoU,
    OdsF,
]


@pytest.mark.parametrize("make", ALL)
def test_nothing_added_is_nan(make):
    assert math.isnan(make().compute())


@pytest.mark.parametrize("make", ALL)
def test_shapes_that_would_broadcast_are_refused(make):
    metric = make()
    text = rf"{type(metric).__name__} has output \[4, 3, 2, 2\], target \[4, 1\]"
    with pytest.raises(ValueError, match=text):
        metric.update(torch.zeros(4, 3, 2, 2), torch.zeros(4, 1))


# Classes.


def test_accuracy_leaves_out_the_ignore_label():
    draw = np.random.default_rng(0)
    output, target = draw.normal(size=(7, 4)), draw.integers(-1, 4, 7)
    kept = target >= 0
    expected = 100 * np.mean(output.argmax(1)[kept] == target[kept])
    assert measured(Accuracy(), output, target) == pytest.approx(expected)


def test_pixel_accuracy_is_over_the_splits_pixels():
    draw = np.random.default_rng(1)
    output, target = draw.normal(size=(7, 3, 4, 5)), draw.integers(-1, 3, (7, 4, 5))
    target[0] = 255
    kept = (target >= 0) & (target < 3)
    expected = 100 * np.mean((output.argmax(1) == target)[kept])
    assert measured(PixelAccuracy(), output, target) == pytest.approx(expected)


def test_binary_accuracy_counts_every_label_that_is_known():
    draw = np.random.default_rng(2)
    output, target = draw.normal(size=(7, 5)), draw.integers(-1, 2, (7, 5))
    kept = target >= 0
    assert measured(BinaryAccuracy(), output, target) == pytest.approx(100 * np.mean(((output > 0) == target)[kept]))


def ious(output, target, num_classes):
    predicted, valid = output.argmax(1), (target >= 0) & (target < num_classes)
    for c in range(num_classes):
        a, b = (predicted == c) & valid, (target == c) & valid
        yield np.sum(a & b) / np.sum(a | b) if np.any(a | b) else None


def test_mean_iou_treats_absent_classes_as_asked():
    draw = np.random.default_rng(3)
    output, target = draw.normal(size=(7, 4, 5, 6)), draw.integers(-1, 3, (7, 5, 6))
    output[:, 3] = -np.inf  # class 3 is in neither
    values = [value for value in ious(output, target, 4) if value is not None]
    assert len(values) == 3
    assert measured(MeanIoU(4), output, target) == pytest.approx(100 * np.mean(values))
    assert measured(MeanIoU(4, absent="zero"), output, target) == pytest.approx(100 * np.sum(values) / 4)
    assert math.isnan(measured(MeanIoU(4, absent="nan"), output, target))


def test_mean_iou_leaves_out_images_of_background_alone():
    draw = np.random.default_rng(4)
    output, target = draw.normal(size=(7, 3, 4, 4)), draw.integers(0, 3, (7, 4, 4))
    target[[1, 5]] = 0
    target[5, 0] = 255
    kept = [0, 2, 3, 4, 6]
    expected = 100 * np.mean(list(ious(output[kept], target[kept], 3)))
    assert measured(MeanIoU(3, skip_background_images=True), output, target) == pytest.approx(expected)
    assert measured(MeanIoU(3), output, target) != pytest.approx(expected)


# Values.


def absolute(output, target, valid):
    return np.mean(np.abs(output - target)[valid])


def relative(output, target, valid):
    return np.mean((np.abs(output - target) / np.where(valid, target, 1))[valid])


@pytest.mark.parametrize(("metric", "measure"), [(AbsoluteError, absolute), (RelativeError, relative)])
@pytest.mark.parametrize("invalid", [0.0, -1.0])
def test_value_errors_in_every_reduction(metric, measure, invalid):
    draw = np.random.default_rng(5)
    output, target = draw.uniform(1, 5, (7, 1, 6, 4)), draw.uniform(1, 5, (7, 1, 6, 4))
    missing = draw.random(target.shape) < np.linspace(0.1, 0.9, 7)[:, None, None, None]
    target[missing] = invalid

    def of(output, target):
        return measure(output, target, target != invalid)

    values, sizes = batch_values(of, output, target)
    expected = {
        "exact": of(output, target),
        "batch_mean": np.mean(values),
        "sample_weighted": np.average(values, weights=sizes),
    }
    found = {name: measured(metric(invalid=invalid, reduction=name), output, target) for name in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    assert len({round(value, 6) for value in found.values()}) == 3


def test_the_root_is_taken_once_over_the_split():
    draw = np.random.default_rng(6)
    output, target = draw.normal(size=(7, 1, 3, 3)), draw.normal(size=(7, 1, 3, 3))
    target[2] = np.nan
    expected = math.sqrt(np.nanmean((output - target) ** 2))
    assert measured(RootMeanSquareError(), output, target) == pytest.approx(expected)


def test_values_without_a_mark_all_count_and_a_batch_without_valid_values_is_left_out():
    metric = AbsoluteError()
    metric.update(torch.zeros(3, 1), torch.ones(3, 1))
    metric.update(torch.zeros(1, 1), torch.full((1, 1), 5.0))
    assert metric.compute() == pytest.approx(2.0)
    metric = AbsoluteError(invalid=0.0, reduction="batch_mean")
    metric.update(torch.ones(2, 1), torch.zeros(2, 1))
    metric.update(torch.ones(2, 1), torch.full((2, 1), 3.0))
    assert metric.compute() == 2.0


def test_a_relative_error_needs_a_target_other_than_zero():
    metric = RelativeError(invalid=-1.0)
    metric.update(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, -1.0]))
    assert metric.compute() == 0.5


@pytest.mark.parametrize("make", [AbsoluteError, RelativeError, RootMeanSquareError])
def test_an_output_that_is_not_a_number_shows(make):
    metric = make()
    metric.update(torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 2.0]))
    assert math.isnan(metric.compute())


# Normals.


def make_normals(seed):
    draw = np.random.default_rng(seed)
    target = draw.normal(size=(7, 3, 8, 9))
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    output = 3 * target + draw.normal(size=target.shape) * np.linspace(0.1, 2, 7)[:, None, None, None]
    target[0, :, 0] = 0
    target[3, :, :4] = 255
    return output, target


def angles_of(output, target):
    valid = (np.abs(target).sum(1) > 0) & (target.max(1) < 2)
    cosine = (output * target).sum(1) / np.maximum(np.linalg.norm(output, axis=1), 1e-9)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)[valid]))


def lower_median(values):
    return np.sort(values)[(len(values) - 1) // 2]


@pytest.mark.parametrize(
    ("make", "measure", "batch_measure"),
    [
        pytest.param(MeanAngle, np.mean, np.mean, id="mean"),
        pytest.param(MedianAngle, np.median, lower_median, id="median"),
        *[
            pytest.param(
                lambda t=t, **options: WithinAngle(t, **options),
                *[lambda angles, t=t: 100 * np.mean(angles < t)] * 2,
                id=f"within {t}",
            )
            for t in (11.25, 22.5, 30)
        ],
    ],
)
def test_angles_in_every_reduction(make, measure, batch_measure):
    output, target = make_normals(7)
    values, sizes = batch_values(lambda o, t: batch_measure(angles_of(o, t)), output, target)
    expected = {
        "exact": measure(angles_of(output, target)),
        "batch_mean": np.mean(values),
        "sample_weighted": np.average(values, weights=sizes),
    }
    for reduction, value in expected.items():
        tolerance = 0.0005 + 1e-9 if (make, reduction) == (MedianAngle, "exact") else 1e-6
        assert measured(make(reduction=reduction), output, target) == pytest.approx(value, abs=tolerance)


def test_normals_that_add_up_to_zero_are_dropped_only_by_the_published_mask():
    target = torch.tensor([[1.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    output = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]).T.reshape(1, 3, 1, 2)
    for mask, expected in (("norm", 45.0), ("sum", 0.0)):
        metric = MeanAngle(mask=mask)
        metric.update(output, target)
        assert metric.compute() == pytest.approx(expected)


@pytest.mark.parametrize("make", [MeanAngle, MedianAngle, lambda: WithinAngle(30)])
def test_a_zero_normal_is_90_degrees_off_and_one_that_is_not_a_number_shows(make):
    metric, target = make(), torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1)
    metric.update(torch.zeros(1, 3, 1), target)
    assert metric.compute() == pytest.approx(0.0 if metric.higher_is_better else 90.0, abs=1e-3)
    metric.update(torch.full((1, 3, 1), torch.nan), target)
    assert math.isnan(metric.compute())


def test_thresholds_of_angles_name_the_metric():
    assert [WithinAngle(t).name for t in (11.25, 30)] == ["<11.25° %", "<30° %"]


# Saliency.


def test_max_iou_takes_one_threshold_for_all_images():
    draw = np.random.default_rng(8)
    output, target = draw.normal(size=(7, 1, 6, 5)), draw.integers(0, 2, (7, 1, 6, 5))
    target[0] = 0
    output[0] = -20  # both empty: IoU 1
    target[1, 0, 0] = 255
    target[2] = 255  # nothing to judge
    probability = 1 / (1 + np.exp(-output))
    means = []
    for threshold in np.linspace(0.2, 0.9, 15):
        values = []
        for p, t in zip(probability, target, strict=True):
            if not np.any(t < 2):
                continue
            a, b = (p > threshold)[t < 2], (t == 1)[t < 2]
            values.append(np.sum(a & b) / np.sum(a | b) if np.any(a | b) else 1.0)
        assert len(values) == 6
        means.append(np.mean(values))
    assert measured(MaxIoU(), output, target) == pytest.approx(100 * max(means))


# Edges.


def logits(probability):
    return torch.logit(torch.as_tensor(probability, dtype=torch.float32), eps=1e-9)


def naive_ods(probability, target, tolerance):
    """The same counts by distances between all pairs of pixels, threshold by threshold."""
    radius = tolerance * math.hypot(*target.shape[-2:])
    best = 0.0
    for threshold in np.arange(1, 100, dtype=np.float32) / np.float32(100):
        counts = np.zeros(4)
        for p, t in zip(probability[:, 0], target[:, 0], strict=True):
            predicted = np.argwhere((p >= threshold) & (t < 2))
            true = np.argwhere(t == 1)
            near = np.hypot(*(predicted[:, None] - true[None]).transpose(2, 0, 1)) <= radius
            counts += [near.any(1).sum(), len(predicted), near.any(0).sum(), len(true)]
        precision, recall = counts[0] / max(counts[1], 1), counts[2] / counts[3]
        best = max(best, 2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return 100 * best


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.15])
def test_ods_f_equals_a_count_over_all_pairs(tolerance):
    draw = np.random.default_rng(9)
    output = draw.normal(-2, 2, size=(7, 1, 12, 10)).astype(np.float32)
    target = (draw.random(output.shape) < 0.06).astype(np.int64)
    target[4, 0, :2] = 255
    probability = torch.as_tensor(output).sigmoid().numpy()
    expected = naive_ods(probability, target, tolerance)
    assert measured(OdsF(tolerance=tolerance, thin=False), output, target) == pytest.approx(expected)
    assert 1 < expected < 100


def circle(size, radius, width, centre=0.0):
    y, x = np.mgrid[:size, :size] - size / 2 - centre
    return (np.abs(np.hypot(y, x) - radius) <= width / 2)[None, None]


def test_ods_f_forgives_what_lies_within_the_tolerance():
    target = torch.as_tensor(circle(96, 30, 1)).long()  # 0.02 of the diagonal: 2.7 pixels
    for shift, expected in ((0.0, 100.0), (1.5, 100.0)):
        metric = OdsF(tolerance=0.02, thin=False)
        metric.update(logits(circle(96, 30, 1, shift) * 0.8), target)
        assert metric.compute() == pytest.approx(expected)
    metric = OdsF(tolerance=0.02)
    metric.update(logits(circle(96, 12, 1) * 0.8), target)
    assert metric.compute() == 0.0


@pytest.mark.parametrize("width", [3, 5])
def test_thinning_leaves_the_middle_of_a_thick_edge(width):
    thick, thin = circle(96, 30, width) * 0.9, torch.as_tensor(circle(96, 30, 1)).long()
    values = {}
    for thinning in (True, False):
        metric = OdsF(tolerance=0.008, thin=thinning)  # 1.1 pixels
        metric.update(logits(thick), thin)
        values[thinning] = metric.compute()
    assert values[True] > 97
    assert values[True] >= values[False]
    assert width == 3 or values[False] < 85


def test_ods_f_of_a_network_that_is_sure_and_of_one_that_is_broken():
    target = torch.as_tensor(circle(96, 30, 1)).long()
    y, x = torch.meshgrid(torch.arange(96.0) - 48, torch.arange(96.0) - 48, indexing="ij")
    sure = (200 - 30 * (torch.hypot(y, x) - 30).abs())[None, None]  # probability 1 over a band of 12 pixels
    metric = OdsF(tolerance=0.008)
    metric.update(sure, target)
    assert metric.compute() > 97
    broken = OdsF()
    broken.update(torch.full((1, 1, 96, 96), torch.nan), target)
    assert broken.compute() == 0.0


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MeanIoU(0), "num_classes is 0"),
        (lambda: MeanIoU(3, absent="drop"), "absent is 'drop', expected one of 'skip', 'zero', 'nan'"),
        (
            lambda: MeanIoU(3).update(torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1)),
            "2 classes, expected num_classes = 3",
        ),
        (lambda: AbsoluteError(reduction="mean"), "reduction is 'mean', expected one of 'exact', 'batch_mean'"),
        (lambda: MeanAngle(mask="all"), "mask is 'all'"),
        (lambda: WithinAngle(0), "threshold is 0, expected a number above 0"),
        (lambda: MeanAngle().update(torch.zeros(2, 2), torch.zeros(2, 2)), r"shape \[2, 2\], expected \[B, 3, ...\]"),
        (lambda: OdsF(tolerance=2), "tolerance is 2"),
        (lambda: OdsF().update(torch.zeros(2, 4), torch.zeros(2, 4)), r"shape \[2, 4\], expected \[B, 1, H, W\]"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
