"""delta_mtl and the similarity of gradients."""

import math

import pytest
import torch

from mtl_ext.metrics import delta_mtl, gds, gms, task_changes
from mtl_ext.monitors import SimilarityMonitor

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


def test_monitor_measures_both_levels_every_n_steps_and_leaves_grad_alone():
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(3, 2), [torch.nn.Linear(2, 1) for _ in range(2)]
    monitor = SimilarityMonitor(every=2)
    for _ in range(3):
        z = trunk(torch.randn(5, 3))
        losses = [head(z).square().mean() for head in heads]
        monitor.observe(losses, shared=trunk.parameters(), features=z)
    assert [record["step"] for record in monitor.records] == [0.0, 2.0]
    assert all(param.grad is None for param in trunk.parameters())
    grads = [
        torch.cat([g.flatten() for g in torch.autograd.grad(x, trunk.parameters(), retain_graph=True)]) for x in losses
    ]
    cosine = torch.nn.functional.cosine_similarity(*grads, dim=0)
    assert monitor.records[-1]["parameter_gds"] == pytest.approx(float(cosine), abs=1e-5)
    grads = [torch.autograd.grad(x, z, retain_graph=True)[0].flatten() for x in losses]
    cosine = torch.nn.functional.cosine_similarity(*grads, dim=0)
    assert monitor.records[-1]["feature_gds"] == pytest.approx(float(cosine), abs=1e-5)


def test_monitor_takes_losses_by_name_and_unused_parameters():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    monitor = SimilarityMonitor()
    monitor.observe({"a": used.sum(), "b": -used.sum() + unused.sum()}, shared=[used, unused])
    assert monitor.records[0]["parameter_gds"] == pytest.approx(-2 / math.sqrt(2 * 5))
    assert "feature_gds" not in monitor.records[0]
    with pytest.raises(ValueError, match="every is 0"):
        SimilarityMonitor(every=0)
