"""Monitors: what they measure, and that training does not notice them."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from method_cases import CASES
from nets import TwoHeads, forward
from torch import nn

from mtl_ext import methods
from mtl_ext.monitors import SimilarityMonitor, attach
from mtl_ext.penalties import Penalty


class RandomNet(TwoHeads):
    """With running statistics and dropout between the trunk's layers."""

    def __init__(self, seed=0, dtype=torch.float32):
        super().__init__(seed, dtype)
        self.trunk = nn.Sequential(*self.trunk[:2], nn.BatchNorm1d(8), nn.Dropout(0.3), self.trunk[2])


VARIANTS = [
    pytest.param(name, level, id=f"{name}-{level}")
    for name, method in methods.METHODS.items()
    for level in (("parameter", "feature") if method.level == "gradient" else ("parameter",))
]


def train(name, level, *, every=None, steps=3):
    """A run of a method in a user's own loop; all bytes that it leaves behind."""
    torch.manual_seed(0)
    net, method = RandomNet(), CASES[name].build(2)
    monitor = None if every is None else attach(method, every, shared=net.shared())
    history = []
    for _ in range(steps):
        z, losses = forward(method, net)
        net.zero_grad()
        weights = method.backward(losses, **({"shared": net.shared()} if level == "parameter" else {"features": z}))
        history += [weights, *(param.grad for param in net.parameters() if param.grad is not None)]
        with torch.no_grad():
            for param in net.parameters():
                param -= 0.0 if param.grad is None else 0.05 * param.grad
        if method.second_look:
            method.look_again(net()[1])
    state = [*net.state_dict().values(), *method.state_dict().values(), torch.get_rng_state()]
    return [value.numpy().tobytes() for value in [*history, *state]], monitor


@pytest.mark.parametrize(("name", "level"), VARIANTS)
def test_training_gives_the_same_bits_with_and_without_a_monitor(name, level):
    alone, _ = train(name, level)
    watched, monitor = train(name, level, every=2)
    assert watched == alone
    assert [record["step"] for record in monitor.records] == [0, 2]
    assert all(
        "parameter_gds" in record and ("feature_gds" in record) == (level == "feature") for record in monitor.records
    )


def naive(gradients):
    """Measures from gradients [K, N] in float64 numpy."""
    a, b = gradients
    na, nb = np.linalg.norm(a), np.linalg.norm(b)
    total = np.abs(a) + np.abs(b)
    zero = total == 0
    shares = np.abs(gradients) / np.where(zero, 1, total)
    entropy = -np.sum(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0), axis=0)
    return {
        "gds": a @ b / (na * nb),
        "gms": 2 * na * nb / (na**2 + nb**2),
        "fd": entropy.mean(),
        "fd_zero": zero.mean(),
        "norm_sum": np.linalg.norm(a + b),
        "cosine/sum/class": a @ b / (na * nb),
        "norm/sum": na,
        "norm/class": nb,
    }


def flat(net, targets, losses):
    return np.stack(
        [np.concatenate([g.flatten().numpy() for g in row]) for row in net.naive_gradients(targets, losses)]
    )


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_measures_at_both_levels_equal_numpy(scale):
    net, monitor = TwoHeads(dtype=torch.float64), SimilarityMonitor()
    z = torch.relu(net.trunk(net.inputs))  # has positions that no task reads
    losses = net.losses_on(slice(None), z * (z > 0.2))
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    monitor.observe(losses, net.shared(), z, scaler=scaler)
    expected = {"step": 0}
    for level, targets in (("parameter", net.shared()), ("feature", [z])):
        expected |= {f"{level}_{name}": value for name, value in naive(flat(net, targets, losses)).items()}
    assert expected["feature_fd_zero"] > 0
    assert monitor.records == [pytest.approx(expected, rel=1e-9)]
    json.dumps(monitor.records, allow_nan=False)


def test_several_features_count_as_one_gradient():
    net, monitor = TwoHeads(dtype=torch.float64), SimilarityMonitor()
    z, losses = net()
    z.retain_grad()
    parts = [z, net.heads["sum"].weight]
    monitor.observe(losses, features=parts)
    assert z.grad is None
    expected = {f"feature_{name}": value for name, value in naive(flat(net, parts, losses)).items()}
    assert monitor.records == [pytest.approx({"step": 0, **expected})]
    assert all(param.grad is None for param in net.parameters())


@pytest.mark.parametrize("as_list", [True, False])
def test_between_own_inputs_only_norms_are_measured_at_feature_level(as_list):
    net, monitor = TwoHeads(), SimilarityMonitor()
    features, losses = net.own_inputs()
    names = [0, 1] if as_list else list(losses)
    if as_list:
        features, losses = list(features.values()), list(losses.values())
    monitor.observe(losses, net.shared(), features)
    (record,) = monitor.records
    assert {name for name in record if name.startswith("feature")} == {f"feature_norm/{name}" for name in names}
    assert f"parameter_cosine/{names[0]}/{names[1]}" in record
    (grad,) = torch.autograd.grad(losses[names[0]], features[names[0]])
    assert record[f"feature_norm/{names[0]}"] == pytest.approx(float(grad.norm()), rel=1e-5)


def test_an_only_task_has_norms_and_no_pairs():
    x, monitor = torch.ones(3, requires_grad=True), SimilarityMonitor()
    monitor.observe({"a": x.sum()}, [x])
    numbers = {"gds": 0.0, "gms": 0.0, "fd": 0.0, "fd_zero": 0.0, "norm_sum": math.sqrt(3), "norm/a": math.sqrt(3)}
    assert monitor.records == [pytest.approx({"step": 0, **{f"parameter_{k}": v for k, v in numbers.items()}})]


def test_parameters_that_no_task_touches_count_for_nothing():
    used, unused, monitor = torch.ones(2, requires_grad=True), torch.ones(6, requires_grad=True), SimilarityMonitor()
    monitor.observe({"a": used.sum(), "b": -used[0]}, shared=[used, unused])
    (record,) = monitor.records
    assert record["parameter_gds"] == pytest.approx(-1 / math.sqrt(2))
    assert record["parameter_fd"] == pytest.approx(math.log(2) / 2)
    assert record["parameter_fd_zero"] == 0.0


def test_a_resumed_monitor_goes_on():
    net, monitor, resumed = TwoHeads(), SimilarityMonitor(every=2), SimilarityMonitor(every=2)
    for _ in range(3):
        monitor.observe(net()[1], net.shared())
    resumed.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    for _ in range(2):
        for each in (monitor, resumed):
            each.observe(net()[1], net.shared())
    assert resumed.records == monitor.records
    assert [record["step"] for record in resumed.records] == [0, 2, 4]


def test_micro_batches_make_one_step():
    net, method = TwoHeads(), methods.PCGrad()
    monitor = attach(method, every=1)
    for _ in range(2):
        for combine in (False, True):
            method.backward(net()[1], net.shared(), combine=combine)
    assert [record["step"] for record in monitor.records] == [0, 1]


def test_of_several_batches_the_last_is_measured():
    net, method, alone = TwoHeads(), methods.MoDo(2), SimilarityMonitor()
    monitor = attach(method)
    batches = [net.losses_on(slice(begin, begin + 4)) for begin in (0, 4, 8)]
    alone.observe(batches[-1], net.shared())
    method.backward(batches, shared=iter(net.shared()))
    assert monitor.records == alone.records


class AddOne(Penalty):
    def __init__(self, z):
        self.z = z

    def cotangents(self, losses):
        return [[(self.z, torch.ones_like(self.z))] for _ in losses.keys]


def test_penalties_reach_the_method_and_not_the_measures():
    records, grads = [], []
    for penalised in (False, True):
        net, method = TwoHeads(), methods.MGDA()
        monitor = attach(method)
        z, losses = net()
        method.backward(losses, features=z, penalties=[AddOne(z)] if penalised else [])
        records.append(monitor.records)
        grads.append(net.trunk[0].weight.grad)
    assert records[0] == records[1]
    assert not torch.equal(*grads)


def test_detach_gives_the_method_back():
    net, method = TwoHeads(), methods.EW()
    monitor = attach(method, shared=net.shared())
    with pytest.raises(ValueError, match=r"this EW has a monitor already: detach\(\) that first"):
        attach(method)
    method.backward(net()[1])
    monitor.detach()
    monitor.detach()
    method.backward(net()[1])
    assert (monitor.step, len(monitor.records)) == (1, 1)
    second = attach(method, shared=net.shared())
    method.backward(net()[1])
    assert (monitor.step, second.step) == (1, 1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda method: pickle.loads(pickle.dumps(method))])
def test_a_copy_of_the_method_is_not_watched_and_can_be(duplicate):
    net, method = TwoHeads(), methods.UW(2)
    monitor = attach(method, shared=net.shared())
    twin = duplicate(method)
    twin.backward(net()[1])
    assert (method.log_variances.grad, twin.log_variances.grad is None) == (None, False)
    other = attach(twin, shared=net.shared())
    twin.backward(net()[1])
    assert (monitor.step, other.step) == (0, 1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda net, z, losses: attach(methods.EW(), every=0), "every is 0, expected a number at least 1"),
        (
            lambda net, z, losses: _attached(methods.EW()).backward(losses),
            "monitor of EW knows neither .* attach it with",
        ),
        (lambda net, z, losses: SimilarityMonitor().observe(losses), "observe needs shared=.* or features="),
        (lambda net, z, losses: SimilarityMonitor().observe(losses, [torch.ones(1)]), "nothing that requires grad"),
        (
            lambda net, z, losses: SimilarityMonitor().observe(losses, features=(z * 1,)),
            "no loss reaches what was given for the feature level: .*compiled",
        ),
        (lambda net, z, losses: SimilarityMonitor().observe(losses, net.shared(), z.detach()), "does not require grad"),
    ],
)
def test_what_cannot_be_watched_is_refused(call, text):
    net = TwoHeads()
    with pytest.raises(ValueError, match=text):
        call(net, *net())


def _attached(method):
    attach(method)
    return method


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_the_combined_gradients_norm_joins_the_record_of_a_measured_step(scale):
    net, monitor, method = TwoHeads(dtype=torch.float64), SimilarityMonitor(every=2), methods.EW()
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    for _ in range(3):
        net.zero_grad()
        losses = net.losses_on(slice(None))
        monitor.observe(losses, net.shared(), scaler=scaler)
        method.backward(losses, scaler=scaler)
        monitor.observe_combined(net.shared(), scaler=scaler)
    assert len(monitor.records) == 2
    for record in monitor.records:
        assert record["combined_norm"] == pytest.approx(record["parameter_norm_sum"], rel=1e-9)
