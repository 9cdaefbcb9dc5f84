"""MOML and FORUM: their steps in closed form on quadratic losses, what they leave alone, their state, their errors."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from test_bilevel import ConvNet, rand
from torch import nn

from mtl_ext import bilevel
from mtl_ext.methods import FORUM, MOML, NonFiniteError
from mtl_ext.methods.forum import meta_shares

cp = pytest.importorskip("cvxpy")

LR = 0.05


class Quadratic(nn.Module):
    """Losses ``|A p - b|^2 / 2`` of p in two pieces: three for training, three meta losses."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(rand(2, 3, seed=0))
        self.second = nn.Parameter(rand(2, seed=1))
        self.train_systems, self.meta_systems = (
            [(0.5 * rand(4, 8, seed=a + k), rand(4, seed=b + k)) for k in range(3)] for a, b in ((10, 20), (30, 130))
        )

    def vector(self):
        return torch.cat([self.first.flatten(), self.second])

    def losses(self, systems):
        names = ("depth", "edges", "class")
        return {name: (a @ self.vector() - b).square().sum() / 2 for name, (a, b) in zip(names, systems, strict=True)}

    def train_losses(self):
        return self.losses(self.train_systems)

    def meta_losses(self):
        return self.losses(self.meta_systems)


def values_and_slopes(systems, p):
    """Of all losses, [K] and [K, N], in numpy."""
    rests = [(a.numpy(), a.numpy() @ p - b.numpy()) for a, b in systems]
    return np.array([rest @ rest / 2 for _, rest in rests]), np.stack([a.T @ rest for a, rest in rests])


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def softmax_jacobian(values):
    weights = softmax(values)
    return np.diag(weights) - np.outer(weights, weights)


def shortest(rows):
    """The weights on the simplex of minimum norm, by non-negative least squares."""
    weights, _ = nnls(np.vstack([rows.T, np.ones(len(rows))]), np.append(np.zeros(rows.shape[1]), 1.0))
    return weights / weights.sum()


class TorchAdam:
    """torch's own Adam on a vector in numpy."""

    def __init__(self, values, lr):
        self.values = nn.Parameter(torch.tensor(values))
        self.adam = torch.optim.Adam([self.values], lr=lr)

    def step(self, grad):
        self.values.grad = torch.tensor(grad)
        self.adam.step()
        return self.values.detach().numpy().copy()


@pytest.mark.parametrize(("mode", "tolerance"), [("jvp", 1e-9), ("fd", 1e-5)])
def test_every_meta_loss_has_a_row_of_its_own(mode, tolerance):
    net = Quadratic()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = bilevel.hyperjacobian(net.train_losses, net.meta_losses, net, optimizer, weights, mode=mode)
    p = net.vector().detach().numpy()
    _, train = values_and_slopes(net.train_systems, p)
    _, meta = values_and_slopes(net.meta_systems, p - LR * weights.numpy() @ train)
    np.testing.assert_allclose(found.gradient.numpy(), -LR * meta @ train.T, rtol=tolerance)
    whole = bilevel.hypergradient(net.train_losses, net.meta_losses, net, optimizer, weights, mode=mode)
    torch.testing.assert_close(found.gradient.sum(0), whole.gradient, rtol=tolerance, atol=0)


def test_one_loss_may_be_two_meta_losses():
    net = Quadratic()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def twice():
        return [net.meta_losses()["depth"]] * 2

    found = bilevel.hyperjacobian(net.train_losses, twice, net, optimizer, torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.gradient[0], found.gradient[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_moml_moves_its_weights_as_published(reduction):
    net = Quadratic()
    factor = {"mean": 1.0, "sum": 3.0}[reduction]
    method = MOML(3, lr=0.1, reduction=reduction)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    logits, adam = np.zeros(3), TorchAdam(np.zeros(3), 0.1)
    for _ in range(4):
        p = net.vector().detach().numpy()
        _, train = values_and_slopes(net.train_systems, p)
        _, meta = values_and_slopes(net.meta_systems, p - LR * factor * softmax(logits) @ train)
        rows = -LR * meta @ train.T @ softmax_jacobian(logits)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        logits = adam.step(shortest(rows) @ rows)
        method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
        np.testing.assert_allclose(method.logits.numpy(), logits, rtol=1e-6, atol=1e-9)
        optimizer.zero_grad()
        weights = method.backward(net.train_losses())
        np.testing.assert_allclose(weights.numpy(), factor * softmax(logits), rtol=1e-6)
        optimizer.step()


class Goals(nn.Module):
    """Each task wants one vector at a place of its own."""

    def __init__(self):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def losses(self, *goals):
        return [(self.vector - goal).square().mean() for goal in goals]


def train(method, net, optimizer, goals, meta_goals, steps):
    for _ in range(steps):
        method.update_weights(lambda: net.losses(*goals), lambda: net.losses(*meta_goals), net, optimizer)
        optimizer.zero_grad()
        method.backward(net.losses(*goals))
        optimizer.step()


def test_moml_lowers_the_weight_of_what_harms_all_meta_losses():
    net, method = Goals(), MOML(3, lr=0.1)
    train(method, net, torch.optim.SGD(net.parameters(), lr=0.1), (1.0, 1.2, -1.0), (1.0, 1.1), 30)
    weights = method.logits.softmax(0)
    assert weights[2] < 0.02
    assert weights[:2].min() > 5 * weights[2]


def test_moml_keeps_its_weights_where_meta_losses_conflict_or_do_not_depend_on_them():
    net, method = Goals(), MOML(2, lr=0.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    train(method, net, optimizer, (1.0, -1.0), (1.0, -1.0), 3)
    torch.testing.assert_close(method.logits, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-8)
    method = MOML(2, lr=0.1)
    train(method, net, optimizer, (0.7, 0.7), (1.0, -1.0), 3)
    assert method.logits.tolist() == [0.0, 0.0]


def published_shares(rows, q, phi):
    """The minimum over shares and nu together, as the published code has it."""
    square = q @ q
    shares, nu = cp.Variable(len(rows), nonneg=True), cp.Variable(nonneg=True)
    objective = cp.sum_squares(rows.T @ shares + nu * q) - phi * square * nu
    pi = phi - rows @ q / square
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(shares) == 1, nu >= pi @ shares])
    problem.solve(cp.CLARABEL)
    return shares.value


def objective(shares, rows, q, phi):
    nu = max(0.0, shares @ (phi - rows @ q / (q @ q)))
    return np.sum((rows.T @ shares + nu * q) ** 2) - nu * phi * (q @ q)


def unit_rows(count, columns, seed):
    rows = rand(count, columns, seed=seed).numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def found_shares(rows, q, phi):
    rows, q = torch.as_tensor(rows), torch.as_tensor(q)
    return meta_shares(rows @ rows.T, rows @ q, q @ q, phi).numpy()


def test_the_shares_solve_the_published_problem_wherever_its_minimum_lies():
    regions = []
    for seed, mix in ((1, 1.0), (3, 1.0), (6, 3.0), (7, 0.0)):
        rows = unit_rows(2 + seed % 5, 7 - seed % 5, seed)  # those of seed 3 depend on each other
        direction = mix * rows.mean(0) + rand(rows.shape[1], seed=100 + seed).numpy()
        for length in np.linspace(0.4, 1.0, 13):
            q = length * direction / np.linalg.norm(direction)
            found, expected = found_shares(rows, q, 0.5), published_shares(rows, q, 0.5)
            assert found.min() >= 0
            assert found.sum() == pytest.approx(1.0)
            assert objective(found, rows, q, 0.5) <= objective(expected, rows, q, 0.5) + 1e-9
            np.testing.assert_allclose(rows.T @ found, rows.T @ expected, atol=1e-3)
            slack = found @ rows @ q / length - 0.5 * length
            regions.append(0 if abs(slack) < 1e-9 else np.sign(slack))
    assert min(regions.count(region) for region in (-1, 0, 1)) >= 5


def test_the_shares_have_an_answer_for_degenerate_gradients():
    rows, q = unit_rows(3, 5, 0), rand(5, seed=1).numpy()
    np.testing.assert_allclose(found_shares(rows, 0 * q, 0.1), shortest(rows), atol=1e-6)
    rows[1] = 0
    left = found_shares(rows, q, 0.1)
    assert left[1] == 0
    np.testing.assert_allclose(left[[0, 2]], found_shares(rows[[0, 2]], q, 0.1))
    assert found_shares(0 * rows, q, 0.1).tolist() == [0.0, 0.0, 0.0]
    assert found_shares(rows[:1], q, 0.1).tolist() == [1.0]
    for scale in (1e-10, 1e10):
        along = found_shares(np.stack([q, -q, q]) / np.linalg.norm(q), scale * q, 0.1)
        assert along.sum() == pytest.approx(1.0)
    for count in (8, 40):
        same = found_shares(unit_rows(1, 5, 0).repeat(count, 0), q, 0.1)
        assert same.sum() == pytest.approx(1.0)


def published_step(net, logits, shares, epoch, steps=5, lr=0.1, phi=0.1):
    """Gradients by the parameters and by the logits, and the shares, in numpy."""
    p, weights = net.vector().detach().numpy(), softmax(logits)
    before, train = values_and_slopes(net.train_systems, p)
    ahead = p
    for _ in range(steps):
        ahead = ahead - lr * weights @ values_and_slopes(net.train_systems, ahead)[1]
    after, _ = values_and_slopes(net.train_systems, ahead)
    q = np.concatenate([(before - after) @ softmax_jacobian(logits), weights @ train])
    _, meta = values_and_slopes(net.meta_systems, p)
    rows = np.hstack([np.zeros((3, 3)), meta / np.linalg.norm(meta, axis=1, keepdims=True)])
    shares = shares + (epoch + 1) ** -0.75 * (published_shares(rows, q, phi) - shares)
    nu = max(0.0, shares @ (phi - rows @ q / (q @ q)))
    step = shares @ rows + nu * q
    return step[3:], step[:3], shares, nu * weights


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_forum_steps_as_published(reduction):
    net = Quadratic()
    factor = {"mean": 1.0, "sum": 3.0}[reduction]
    method = FORUM(3, lr=0.1, phi=0.7, reduction=reduction)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    logits, shares, adam = np.zeros(3), np.zeros(3), TorchAdam(np.zeros(3), 0.1)
    for step in range(6):
        grad, slope, shares, weights = published_step(net, logits, shares, step // 2, phi=0.7)
        logits = adam.step(slope)
        method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
        optimizer.zero_grad()
        found = method.backward(net.train_losses())
        np.testing.assert_allclose(found.numpy(), factor * weights, atol=1e-3)
        mine = torch.cat([net.first.grad.flatten(), net.second.grad]).numpy()
        np.testing.assert_allclose(mine, factor * grad, atol=1e-3 * np.abs(grad).max())
        np.testing.assert_allclose(method.shares.numpy(), shares, atol=1e-3)
        np.testing.assert_allclose(method.logits.numpy(), logits, atol=1e-2)
        optimizer.step()
        if step % 2:
            method.end_epoch()
    assert np.abs(logits).max() > 0.1
    assert method.epoch == 3


def test_forum_in_micro_batches_averages_to_the_step_of_the_large_batch():
    net = Quadratic()
    method, optimizer = FORUM(3), torch.optim.SGD(net.parameters(), lr=LR)
    method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
    method.backward(net.train_losses())
    expected = [param.grad.clone() for param in net.parameters()]
    net.zero_grad()
    for share in (0.25, 1.75):  # halves of the batch whose mean is the batch
        method.backward({name: share * loss for name, loss in net.train_losses().items()})
    for param, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(param.grad / 2, grad)


def test_forum_scales_its_step_for_a_grad_scaler():
    net = Quadratic()
    method, optimizer = FORUM(3), torch.optim.SGD(net.parameters(), lr=LR)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
    weights = method.backward(net.train_losses())
    expected = [param.grad.clone() for param in net.parameters()]
    net.zero_grad()
    torch.testing.assert_close(method.backward(net.train_losses(), scaler=scaler), weights)
    for param, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(param.grad / 64, grad)


def test_forum_descends_the_training_loss_where_nobody_plans_its_step():
    net = Quadratic()
    weights = FORUM(3).backward(net.train_losses())
    np.testing.assert_allclose(weights.numpy(), 1 / 3)
    mean = torch.autograd.grad(sum(net.train_losses().values()) / 3, net.second)[0]
    torch.testing.assert_close(net.second.grad, mean)


def test_forum_leaves_parameters_out_that_no_loss_reaches():
    net = Quadratic()
    net.idle = nn.Parameter(rand(2, seed=5))
    method, optimizer = FORUM(3), torch.optim.SGD(net.parameters(), lr=LR)
    method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
    method.backward(net.train_losses())
    assert net.idle.grad is None


@pytest.mark.parametrize("method", [MOML(2), FORUM(2, phi=10.0)], ids=["MOML", "FORUM"])
def test_looking_ahead_leaves_everything_as_it_is(method):
    net = ConvNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(net.losses().values()).backward()
    optimizer.step()
    grads = [param.grad.clone() for param in net.parameters()]
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    rng = torch.get_rng_state()

    def meta_losses():
        losses = net.losses(seed=1)
        return losses if isinstance(method, FORUM) else [losses["class"]]  # two would conflict

    with torch.no_grad():
        method.update_weights(net.losses, meta_losses, net, optimizer)
    assert torch.equal(torch.get_rng_state(), rng)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[0][name]), name
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)
    assert all(torch.equal(param.grad, grad) for param, grad in zip(net.parameters(), grads, strict=True))
    assert method.logits.abs().max() > 0


@pytest.mark.parametrize("build", [MOML, FORUM])
def test_a_used_instance_continues_bit_for_bit(build):
    def run(method, net, optimizer):
        for _ in range(3):
            method.update_weights(net.train_losses, net.meta_losses, net, optimizer)
            optimizer.zero_grad()
            method.backward(net.train_losses())
            optimizer.step()
        method.end_epoch()
        return [method.logits, *net.parameters()]

    used, net = build(3), Quadratic()
    optimizer = torch.optim.Adam(net.parameters(), lr=LR)
    run(used, net, optimizer)
    fresh, other = build(3), Quadratic()
    again = torch.optim.Adam(other.parameters())
    for new, old in ((fresh, used), (other, net), (again, optimizer)):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(run(fresh, other, again), run(used, net, optimizer), strict=True))


@pytest.mark.parametrize("build", [MOML, FORUM])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "propagate"])
@pytest.mark.parametrize("bad_batch", ["train", "meta"])
def test_losses_that_are_not_finite_are_named_and_never_reach_the_weights(build, nonfinite, bad_batch):
    net, method = Quadratic(), build(3, nonfinite=nonfinite)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    before = copy.deepcopy(method.state_dict())
    good = (net.train_losses, net.meta_losses)

    def bad():
        losses = net.train_losses()
        return losses | {"edges": losses["edges"] * torch.nan}

    functions = (bad, good[1]) if bad_batch == "train" else (good[0], bad)
    if nonfinite == "raise":
        with pytest.raises(NonFiniteError, match=r"losses\['edges'\] is nan"):
            method.update_weights(*functions, net, optimizer)
    else:
        method.update_weights(*functions, net, optimizer)
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
    weights = method.backward(net.train_losses())
    if build is FORUM and nonfinite == "skip":
        assert weights.tolist() == [0.0, 0.0, 0.0]
        assert net.first.grad is None
    elif build is FORUM and nonfinite == "propagate":
        assert weights.isnan().all()
        assert net.first.grad.isnan().all()
    else:
        assert weights.tolist() == pytest.approx([1 / 3] * 3)
    net.zero_grad()
    method.update_weights(*good, net, optimizer)
    assert method.backward(net.train_losses()).isfinite().all()
    assert net.first.grad.isfinite().all()


def test_inner_steps_that_diverge_and_slopes_that_are_infinite_are_named():
    net = Quadratic()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    with pytest.raises(NonFiniteError, match=r"losses\['depth'\] is \w+ after the inner steps: lower inner_lr"):
        FORUM(3, inner_lr=1e80).update_weights(net.train_losses, net.meta_losses, net, optimizer)

    def steep():
        losses = net.meta_losses()
        return losses | {"edges": losses["edges"] + (net.second - net.second.detach()).abs().sqrt().sum()}

    with pytest.raises(NonFiniteError, match=r"the gradient of meta losses\['edges'\] has squared norm nan"):
        FORUM(3).update_weights(net.train_losses, steep, net, optimizer)


@pytest.mark.parametrize("build", [MOML, FORUM])
def test_what_cannot_be_used_is_named(build):
    net, other, method = Quadratic(), Quadratic(), build(3)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def two():
        return list(net.train_losses().values())[:2]

    for first, second, message in (
        (two, net.meta_losses, "losses has 2 tasks|weights has shape"),
        (other.train_losses, net.meta_losses, "train_losses reaches no parameter of model"),
        (net.train_losses, other.meta_losses, "meta_losses reaches no parameter of model"),
    ):
        with pytest.raises(ValueError, match=message):
            method.update_weights(first, second, net, optimizer)
    if build is FORUM:
        with pytest.raises(ValueError, match="meta_losses gave 2 losses, expected num_tasks = 3"):
            method.update_weights(net.train_losses, two, net, optimizer)
