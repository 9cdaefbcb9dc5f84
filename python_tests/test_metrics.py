"""delta_mtl, the similarity of gradients, and of rankings."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

from mtl_ext.metrics import cosines, delta_mtl, final_value, gds, gms, moving_average, ranking_similarity, task_changes

BASELINE = {"seg": {"mIoU": 40.0, "accuracy": 50.0}, "depth": {"error": 2.0}}


def test_delta_mtl_averages_inside_a_task_first():
    measures = {"seg": {"mIoU": 42.0, "accuracy": 55.0}, "depth": {"error": 2.5}}
    changes = task_changes(measures, BASELINE, {"error"})
    assert changes == pytest.approx({"seg": (0.05 + 0.10) / 2, "depth": -0.25})
    assert delta_mtl(measures, BASELINE, {"error"}) == pytest.approx((0.075 - 0.25) / 2)


def test_delta_mtl_of_the_baseline_is_zero():
    assert delta_mtl(BASELINE, BASELINE, {"error"}) == 0.0


@pytest.mark.parametrize(
    ("measures", "baseline", "text"),
    [
        ({}, {}, "at least one"),
        ({"a": {"m": 1.0}}, {"b": {"m": 1.0}}, r"\['a'\].*\['b'\]"),
        ({"a": {"m": 1.0}}, {"a": {"n": 1.0}}, "task 'a'.*'m'.*'n'"),
        ({"a": {"m": 1.0}}, {"a": {"m": 0.0}}, "task 'a'.*'m' is 0"),
    ],
)
def test_delta_mtl_refuses(measures, baseline, text):
    with pytest.raises(ValueError, match=text):
        delta_mtl(measures, baseline)


def test_gds_and_gms_by_hand():
    jacobian = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    gram = jacobian @ jacobian.T
    root = math.sqrt(2)
    assert gds(gram) == pytest.approx((1 / root + 0 - 1 / root) / 3)
    assert gms(gram) == pytest.approx((2 * root / 3 + 4 / 5 + 4 * root / 6) / 3)


def test_gds_and_gms_ignore_scale_and_zero_gradients():
    jacobian = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    gram = jacobian @ jacobian.T
    assert gds(gram) == pytest.approx(1 / math.sqrt(2) / 3)
    for scale in (1e-24, 1e24):
        assert gds(scale * gram) == pytest.approx(gds(gram))
        assert gms(scale * gram) == pytest.approx(gms(gram))
    assert gds(torch.zeros(2, 2)) == gms(torch.zeros(2, 2)) == 0.0


@pytest.mark.parametrize("measure", [gds, gms])
def test_similarity_of_one_task_is_zero_of_nan_is_nan_and_of_no_matrix_an_error(measure):
    assert measure(torch.ones(1, 1)) == 0.0
    assert math.isnan(measure(torch.full((2, 2), torch.nan)))
    with pytest.raises(ValueError, match=r"gram has shape \[2, 3\]"):
        measure(torch.ones(2, 3))


def test_cosines_have_ones_on_the_diagonal_and_zeros_for_a_zero_gradient():
    jacobian = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    root = 1 / math.sqrt(2)
    expected = [[1, root, 0], [root, 1, 0], [0, 0, 0]]
    assert cosines(jacobian @ jacobian.T).tolist() == [pytest.approx(row) for row in expected]


def named(values):
    return {f"method {index}": value for index, value in enumerate(values)}


@pytest.mark.parametrize("seed", range(3))
def test_ranking_similarity_without_ties_is_kendalls_tau_folded(seed):
    first, second = np.random.default_rng(seed).normal(size=(2, 21))
    tau = kendalltau(first, second).statistic
    expected = max((tau + 1) / 2, (1 - tau) / 2)
    assert ranking_similarity(named(first), named(second)) == pytest.approx(expected)
    assert ranking_similarity(named(-first), named(second)) == pytest.approx(expected)
    assert expected * 210 == pytest.approx(round(expected * 210))  # as are the paper's values


def test_ranking_similarity_counts_ties_as_the_paper_defines_them():
    first, second = named([1.0, 2.0, 3.0]), named([1.0, 1.0, 2.0])
    # Of the six ordered pairs only (1, 0) differs: 2 > 1, but not 1 > 1.
    assert ranking_similarity(first, second) == pytest.approx(5 / 6)
    assert ranking_similarity(second, second) == 1.0
    shuffled = dict(reversed(second.items()))
    assert ranking_similarity(first, shuffled) == pytest.approx(5 / 6)


def test_a_curve_is_ranked_by_its_last_fifty_samples():
    curve = [100.0] * 7 + list(range(50))
    assert final_value(curve) == pytest.approx(24.5)
    assert final_value(curve, last=2) == pytest.approx(48.5)
    assert final_value([1.0, 2.0]) == pytest.approx(1.5)


def test_moving_average_keeps_length_ends_and_straight_lines():
    line = [0.5 * i for i in range(40)]
    assert moving_average(line) == pytest.approx(line)
    curve = np.random.default_rng(0).normal(size=40)
    smooth = moving_average(list(curve))  # four samples: two on either side
    assert (smooth[0], smooth[-1]) == pytest.approx((curve[0], curve[-1]))
    assert smooth[1] == pytest.approx(curve[:3].mean())
    assert smooth[20] == pytest.approx(curve[18:23].mean())
    assert moving_average([1.0, 5.0]) == [1.0, 5.0]
    assert moving_average([]) == []


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: ranking_similarity({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0}), r"\['a', 'b'\], second \['a', 'c'\]"),
        (lambda: ranking_similarity({"a": 1.0}, {"a": 1.0}), "at least two"),
        (lambda: ranking_similarity({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": math.nan}), r"second\['b'\] is NaN"),
        (lambda: final_value([]), "curve has 0 samples"),
        (lambda: final_value([1.0], last=0), "last is 0"),
        (lambda: moving_average([1.0], share=2.0), "share is 2.0"),
    ],
)
def test_curves_and_rankings_that_mean_nothing_are_refused(call, text):
    with pytest.raises(ValueError, match=text):
        call()
