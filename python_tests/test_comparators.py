"""SAM and PTA."""

import pytest
import torch
from method_cases import CASES
from nets import TwoHeads, forward
from torch import nn

from mtl_ext import methods
from mtl_ext.comparators import PTA, SAM


def sgd(net, method):
    return torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(CASES))
def test_sam_steps_with_the_methods_gradients_at_the_moved_parameters(name):
    net, plain = TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)
    method, reference = CASES[name].build(2), CASES[name].build(2)
    optimizer = sgd(net, method)

    def backward(of, by):
        _, losses = forward(by, of)
        return by.backward(losses, shared=of.shared())

    weights = SAM(optimizer, net, rho=0.3).step(lambda: net()[1], lambda: backward(net, method))

    params = list(plain.parameters())
    before = [param.detach().clone() for param in params]
    grads = torch.autograd.grad(sum(plain()[1].values()), params)
    norm = torch.cat([grad.flatten() for grad in grads]).norm()
    with torch.no_grad():
        for param, grad in zip(params, grads, strict=True):
            param += 0.3 * grad / norm
    expected = backward(plain, reference)
    with torch.no_grad():
        for param, value in zip(params, before, strict=True):
            param.copy_(value)
    sgd(plain, reference).step()
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(dict(net.named_parameters()), dict(plain.named_parameters()))


def test_statistics_are_those_of_the_first_pass():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x, seen = torch.randn(6, 4), []

    def losses():
        loss = net(x).square().mean()
        seen.append({key: value.clone() for key, value in net[1].state_dict().items() if "running" in key})
        return [loss]

    SAM(torch.optim.SGD(net.parameters(), lr=0.1), net).step(losses, lambda: methods.EW().backward(losses()))
    after = {key: value for key, value in net[1].state_dict().items() if "running" in key}
    torch.testing.assert_close(after, seen[0], rtol=0, atol=0)
    assert not torch.equal(after["running_mean"], seen[1]["running_mean"])
    assert net[1].num_batches_tracked == 1


def test_an_error_leaves_the_model_as_it_was():
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    sam = SAM(torch.optim.SGD(net.parameters(), lr=0.1), net)

    def losses():
        return [net(torch.randn(6, 4)).square().mean()]

    def broken():
        losses()
        raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        sam.step(losses, broken)
    assert all(torch.equal(param, before[name]) for name, param in net.named_parameters())
    assert net[1].num_batches_tracked == 1  # of the first pass, which went well


@pytest.mark.parametrize("factor", [0.0, float("nan")])
def test_without_a_direction_there_is_no_ascent(factor):
    net, seen = nn.Linear(3, 1), []
    before = net.weight.detach().clone()

    def losses():
        seen.append(net.weight.detach().clone())
        return [net(torch.ones(2, 3)).sum() * factor]

    SAM(torch.optim.SGD(net.parameters(), lr=0.1), net).step(losses, losses)
    assert all(torch.equal(weight, before) for weight in (*seen, net.weight))


def test_sam_with_a_scaler():
    nets = [TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)]
    for net, scaler in zip(nets, (None, torch.amp.GradScaler("cpu", init_scale=256.0)), strict=True):
        method = methods.PCGrad()
        backward = lambda net=net, method=method, scaler=scaler: method.backward(  # noqa: E731
            net()[1], shared=net.shared(), scaler=scaler
        )
        SAM(sgd(net, method), net, scaler=scaler).step(lambda net=net: net()[1], backward)
    torch.testing.assert_close(*(dict(net.named_parameters()) for net in nets))


def test_rho_is_checked():
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"rho is 0\.0, expected a number above 0"):
        SAM(torch.optim.SGD(net.parameters(), lr=0.1), net, rho=0.0)


def test_pta_trains_all_decoders_and_predicts_with_the_first():
    torch.manual_seed(0)
    head = nn.Linear(4, 3)
    pta = PTA(head, decoders=3, seed=1)
    z, y = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    assert pta.decoders[0] is head
    assert torch.equal(pta(z), head(z))
    weights = [decoder.weight for decoder in pta.decoders]
    assert not torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[0], weights[1])
    loss = pta.loss(z, lambda out: nn.functional.cross_entropy(out, y))
    torch.testing.assert_close(loss, sum(nn.functional.cross_entropy(d(z), y) for d in pta.decoders) / 3)
    methods.MGDA().backward([loss, z.square().sum()], features=z)
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)


def test_the_decoders_depend_on_the_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = (PTA(nn.Linear(2, 2), seed=7).decoders[1].weight for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(3)
    head = nn.Linear(2, 2)
    torch.manual_seed(3)
    PTA(head, seed=7)
    assert torch.equal(torch.rand(2), expected)
    with pytest.raises(ValueError, match="decoders is 0, expected a number at least 1"):
        PTA(head, decoders=0)
