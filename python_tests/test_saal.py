"""SAAL: whose weights share 1, the closed form of the learnt ones' gradient, what is trained, state, errors."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_data import make_data
from test_bilevel import LR, Quadratic, made, rand
from test_self_auxiliary import CONFIG
from torch import nn

from mtl_ext.bilevel import task_products
from mtl_ext.methods import NonFiniteError, SAALe, SAALw
from mtl_ext.methods.saal_e import normalised, target_indices
from mtl_ext.trainers import Trainer, train_run

# Of two tasks a and b, both self-auxiliaries, and of c none; not target by target, as a user may have them.
NAMES = ("a", "b", "c", "b->a", "a->b", "c->a")
GROUPS = (("a", "b->a", "c->a"), ("b", "a->b"), ("c",))


def shares(weights):
    """Eq. 11, in numpy, by name."""
    by_name = dict(zip(NAMES, np.asarray(weights), strict=True))
    out = {name: by_name[name] / sum(by_name[other] for other in group) for group in GROUPS for name in group}
    return np.array([out[name] for name in NAMES])


def jacobian_of_shares(weights):
    """d share_j / d weight_i = (delta_ij - share_j) / S_t within a target, in numpy."""
    found, total = shares(weights), np.zeros((len(NAMES), len(NAMES)))
    for group in GROUPS:
        index = [NAMES.index(name) for name in group]
        for i in index:
            for j in index:
                total[j, i] = ((i == j) - found[j]) / np.asarray(weights)[index].sum()
    return total


class Systems(Quadratic):
    """Linear-quadratic tasks: six on the training data, three primary ones on other data."""

    def __init__(self):
        super().__init__()
        self.systems = [(rand(5, 10, seed=30 + k), rand(5, seed=50 + k)) for k in range(9)]

    def train_losses(self):
        return {name: self.value(k) for k, name in enumerate(NAMES)}

    def meta_losses(self):
        return {name: self.value(6 + k) for k, name in enumerate("abc")}


def closed_form(net, weights):
    """The gradient of the primary tasks' meta loss by w, after one step of gradient descent, in numpy."""
    p = net.vector().detach().numpy()
    systems = [(matrix.numpy(), target.numpy()) for matrix, target in net.systems]
    slopes = np.stack([matrix.T @ (matrix @ p - target) for matrix, target in systems[:6]])
    ahead = p - LR * shares(weights) @ slopes
    v = sum(matrix.T @ (matrix @ ahead - target) for matrix, target in systems[6:])
    return jacobian_of_shares(weights).T @ (-LR * slopes @ v)


def gradient_of(method, net, optimizer, meta=None):
    """The gradient that the method gives to Adam."""
    caught = []
    method.adam.step = lambda values, grad: caught.append(grad)
    method.update_weights(net.train_losses, meta or net.meta_losses, net, optimizer)
    return caught[0]


WEIGHTS = torch.tensor([0.5, 0.2, 0.3, 0.7, 0.1, 0.4], dtype=torch.float64)


@pytest.mark.parametrize("options", [{}, {"mode": "fd"}, {"mode": "fd", "fd_step": "norm"}, {"virtual_step": "sgd"}])
def test_the_gradient_of_the_weights_has_its_closed_form_on_quadratic_losses(options):
    net = Systems()
    method = SAALw(6, **options)
    method.weights.copy_(WEIGHTS)
    method.adam.steps.fill_(1)  # so that the weights count as started
    found = gradient_of(method, net, made("sgd", list(net.parameters())))
    np.testing.assert_allclose(found.numpy(), closed_form(net, WEIGHTS), rtol=1e-4, atol=1e-10)
    assert abs(found[2]) < 1e-10  # c has no self-auxiliary: its share is 1 whatever its weight


def test_the_mean_of_the_losses_has_a_kth_of_the_gradient_of_a_kth_of_the_step():
    net = Systems()
    found = []
    for reduction, lr in (("mean", 6 * LR), ("sum", LR)):
        method = SAALw(6, reduction=reduction)
        found.append(gradient_of(method, net, torch.optim.SGD(net.parameters(), lr=lr)))
    torch.testing.assert_close(*found)


def published_gradient(net, weights, batch, meta, lr, step):
    """Eq. 9 with Eq. 8's factor, on copies of the network: -lr / (2 step) [losses(+) - losses(-)], then Eq. 11."""
    params = list(net.parameters())
    losses = torch.stack(list(batch(net).values()))
    grads = torch.autograd.grad(torch.tensor(shares(weights)) @ losses, params)
    ahead = copy.deepcopy(net)
    with torch.no_grad():
        for target, param, grad in zip(ahead.parameters(), params, grads, strict=True):
            target.copy_(param - lr * grad)
    v = torch.autograd.grad(
        sum(meta(ahead).values()), list(ahead.parameters()), materialize_grads=True, allow_unused=True
    )
    sides = []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for param, g in zip(moved.parameters(), v, strict=True):
                param += sign * step * g
            sides.append(torch.stack(list(batch(moved).values())).detach().numpy())
    return jacobian_of_shares(weights).T @ (-lr / (2 * step) * (sides[0] - sides[1]))


class Net(nn.Module):
    """A shared layer, a path for each primary task, and a head per loss."""

    def __init__(self, names=NAMES, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.names = names
        self.shared = nn.Linear(6, 4)
        self.paths = nn.ModuleDict({name: nn.Linear(4, 4) for name in "abc"})
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in names])
        self.double()

    def losses(self, data, primary=False):
        inputs, targets = data
        z = torch.tanh(self.shared(inputs))
        out = {}
        for name, head in zip(self.names, self.heads, strict=True):
            source, arrow, target = name.partition("->")
            if not (arrow and primary):
                guess = head(torch.tanh(self.paths[target or source](z)))
                out[name] = (guess[:, 0] - targets[source]).square().mean()
        return out


def draw(seed, count=12):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, dtype=torch.float64, generator=generator)
    return inputs, {name: torch.sin(inputs @ rand(6, seed=k)) for k, name in enumerate("abc")}


@pytest.mark.parametrize(("first_lr", "step"), [(0.05, 0.05), (200.0, 0.2)])
def test_the_finite_difference_is_the_published_one_with_a_floor_under_its_step(first_lr, step):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=first_lr)
    method = SAALw(6, mode="fd", lr=0.0)
    data, meta = draw(0), draw(1)
    # The schedule lowers the learning rate: the step of the difference stays at 1e-3 of the first one.
    method.update_weights(partial(net.losses, data), partial(net.losses, meta, True), net, optimizer)
    optimizer.param_groups[0]["lr"] = 0.05
    net.train_losses = partial(net.losses, data)
    found = gradient_of(method, net, optimizer, partial(net.losses, meta, True))
    weights = [1 / 3] * 6
    expected = published_gradient(
        net, weights, lambda of: of.losses(data), lambda of: of.losses(meta, True), 0.05, step
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-12)
    exact = gradient_of(SAALw(6), net, optimizer, partial(net.losses, meta, True))
    np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=0.05, atol=1e-5)


def test_only_primary_tasks_count_in_the_meta_loss():
    net, optimizer = Net(), None
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    net.train_losses = partial(net.losses, draw(0))
    found = [gradient_of(SAALw(6), net, optimizer, partial(net.losses, draw(1), primary)) for primary in (True, False)]
    torch.testing.assert_close(*found)
    with pytest.raises(ValueError, match=r"meta_losses has the tasks \['b->a'\], expected the primary tasks among"):
        gradient_of(SAALw(6), net, optimizer, lambda: {"b->a": net.losses(draw(1))["b->a"]})


@pytest.mark.parametrize("cls", [SAALe, SAALw])
def test_tasks_of_one_target_share_weight_one_in_the_real_step(cls):
    method, net = cls(6), Net()
    method.weights.copy_(WEIGHTS)
    losses = net.losses(draw(0))
    weights = method.backward(losses)
    np.testing.assert_allclose(weights.numpy(), shares(WEIGHTS), rtol=1e-12)
    twin = Net()
    (torch.tensor(shares(WEIGHTS)) @ torch.stack(list(twin.losses(draw(0)).values()))).backward()
    torch.testing.assert_close([p.grad for p in net.parameters()], [p.grad for p in twin.parameters()])
    assert cls(6).backward(Net().losses(draw(0))).tolist() == pytest.approx([1 / 3, 0.5, 1, 1 / 3, 0.5, 1 / 3])


def train(method, net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        batch, meta = draw(2 * step), draw(2 * step + 1)
        method.update_weights(partial(net.losses, batch), partial(net.losses, meta, True), net, optimizer)
        optimizer.zero_grad()
        method.backward(net.losses(batch))
        optimizer.step()


def test_a_task_of_weight_zero_is_not_trained_and_can_come_back():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    method = SAALw(6, lr=1e-2)
    train(method, net, optimizer, 1)
    before = net.heads[3].weight.clone()
    method.weights[3] = 0.0
    method.adam.load_state_dict(SAALw(6).adam.state_dict())
    optimizer.zero_grad()
    losses = net.losses(draw(4))
    assert method.backward(losses)[3] == 0
    optimizer.step()
    assert net.heads[3].weight.grad is None
    assert torch.equal(net.heads[3].weight, before)
    assert net.heads[5].weight.grad is not None
    gradient = gradient_of(copy.deepcopy(method), net_with(net, draw(6)), optimizer, partial(net.losses, draw(7), True))
    assert gradient[3] != 0


def net_with(net, data):
    net.train_losses = partial(net.losses, data)
    return net


def test_weights_stop_at_zero_and_never_vanish_for_a_whole_target():
    targets = target_indices(NAMES)
    method = SAALw(6, lr=1.0)
    method.weights.copy_(WEIGHTS)
    method._move(torch.tensor([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0]).double(), targets)
    expected = [1.5, 0.2, 0.3, 0.0, 0.1, 0.0]  # of b and of c all would have fallen to 0: they keep what they had
    np.testing.assert_allclose(method.weights.numpy(), expected, rtol=1e-6)
    assert normalised(method.weights, targets).tolist() == pytest.approx([1, 2 / 3, 1, 0, 1 / 3, 0])


class Goals(nn.Module):
    """A task whose path gets a useful and a harmful self-auxiliary: goals near to its own, and opposite."""

    def __init__(self):
        super().__init__()
        self.goals = {"a": 1.0, "b": 1.2, "c": -1.0, "b->a": 1.2, "c->a": -1.0}
        self.vectors = nn.ParameterDict({name: torch.zeros(4, dtype=torch.float64) for name in "abc"})

    def losses(self, data, primary=False):
        noise = 0.1 * data[0][:, :4]
        names = [name for name in self.goals if not (primary and "->" in name)]
        return {n: (self.vectors[n[-1]] - self.goals[n] + noise).square().mean() for n in names}


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_useful_self_auxiliaries_rise_and_harmful_ones_fall(mode):
    net = Goals()
    method = SAALw(5, lr=5e-3, mode=mode)
    train(method, net, torch.optim.SGD(net.parameters(), lr=0.02), 50)
    a, b, c, useful, harmful = method.weights.tolist()
    assert useful > 0.4
    assert a > 1 / 3
    assert harmful < 0.2
    assert b == pytest.approx(1 / 3)  # b and c have no self-auxiliaries
    assert c == pytest.approx(1 / 3)


def test_a_used_instance_continues_bit_for_bit():
    used, net = SAALw(6, mode="fd"), Net()
    optimizer = torch.optim.Adam(net.parameters())
    train(used, net, optimizer, 3)
    fresh, other = SAALw(6, mode="fd"), Net(seed=1)
    again = torch.optim.Adam(other.parameters())
    for new, old in ((fresh, used), (other, net), (again, optimizer)):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    for method, model, by in ((used, net, optimizer), (fresh, other, again)):
        train(method, model, by, 3, start=3)
    assert torch.equal(fresh.weights, used.weights)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_names_come_with_the_losses_or_once_and_for_all():
    losses = Net().losses(draw(0))
    listed = list(losses.values())
    for cls in (SAALe, SAALw):
        with pytest.raises(
            ValueError, match=f"losses has no names, by which {cls.__name__} knows.*'SOURCE->TARGET'.*tasks="
        ):
            cls(6).backward(listed)
        assert torch.equal(cls(6, tasks=NAMES).backward(listed), cls(6).backward(Net().losses(draw(0))))
        listed = list(Net().losses(draw(0)).values())
        with pytest.raises(
            ValueError, match="task 'a->d' is a self-auxiliary of 'd', expected one of the primary: a, b"
        ):
            cls(3, tasks=["a", "b", "a->d"])
        with pytest.raises(ValueError, match="losses has 6 tasks, expected num_tasks = 5"):
            cls(5).backward(Net().losses(draw(0)))
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    with pytest.raises(ValueError, match="train_losses has no names"):
        SAALw(6).update_weights(lambda: list(net.losses(draw(0)).values()), net.losses, net, optimizer)
    with pytest.raises(ValueError, match="meta_losses has no names"):
        SAALw(6, tasks=NAMES).update_weights(
            lambda: list(net.losses(draw(0)).values()), lambda: list(net.losses(draw(1), True).values()), net, optimizer
        )


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_a_shared_step_finds_the_same_weights_one_step_later(mode):
    found = []
    for shared in (False, True):
        net, method = Net(), SAALw(6, lr=1e-2, mode=mode, shared_step=shared)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        batch, meta = partial(net.losses, draw(0)), partial(net.losses, draw(1), True)
        if not shared:
            method.update_weights(batch, meta, net, optimizer)
        applied = method.backward(batch())
        if shared:
            assert applied.tolist() == pytest.approx([1 / 3, 0.5, 1, 1 / 3, 0.5, 1 / 3])
            method.update_weights(batch, meta, net, optimizer)
        found.append(method.weights)
    torch.testing.assert_close(*found, rtol=1e-6, atol=0)


def test_losses_that_are_not_finite_are_named_and_never_reach_the_weights():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    bad = draw(1)
    bad[1]["b"][0] = torch.nan
    for first, second in ((draw(0), bad), (bad, draw(0))):
        losses = partial(net.losses, first), partial(net.losses, second, True)
        with pytest.raises(NonFiniteError, match=r"losses\['b'\] is nan"):
            SAALw(6).update_weights(*losses, net, optimizer)
        method = SAALw(6, nonfinite="skip")
        method.update_weights(*losses, net, optimizer)
        assert method.weights.tolist() == [1.0] * 6
        assert method.adam.steps == 0


def test_a_schedule_that_ends_at_zero_does_no_harm():
    net = Net()
    for mode in ("jvp", "fd"):
        method = SAALw(6, mode=mode)
        train(method, net, torch.optim.SGD(net.parameters(), lr=0.0), 1)
        assert method.weights.tolist() == pytest.approx([1 / 3] * 6)


def test_the_step_of_the_difference_can_be_given():
    net = Systems()
    direction = {name: rand(*param.shape, seed=k) for k, (name, param) in enumerate(net.named_parameters())}
    moved = copy.deepcopy(net), copy.deepcopy(net)
    for sign, other in zip((1, -1), moved, strict=True):
        with torch.no_grad():
            for name, param in other.named_parameters():
                param += sign * 0.5 * direction[name]
    up, down = (torch.stack(list(other.train_losses().values())) for other in moved)
    torch.testing.assert_close(
        task_products(net.train_losses, net, direction, mode="fd", eps=0.5), (up - down).detach()
    )


LEARNT = replace(CONFIG, method="SAALw", method_options={"lr": 1e-2}, meta_data="holdout:0.25")


@pytest.mark.parametrize("shared", [False, True])
def test_training_runs_the_primary_tasks_alone_on_meta_data(shared):
    trainer = Trainer(replace(LEARNT, method_options={"shared_step": shared}), make_data())
    runs = dict.fromkeys(trainer.parts.model.tasks, 0)  # the primary tasks first

    def count(name, *_):
        runs[name] += 1

    for name in runs:
        trainer.parts.model.head(name).register_forward_hook(partial(count, name))
    item = next(trainer.step.batches(torch.Generator()))
    trainer.step(item)
    # Once for the real step, for the virtual one and for the forward-mode pass; primary tasks once more.
    passes = 2 if shared else 3
    assert runs == dict(zip(runs, (passes + 1, passes + 1, passes, passes), strict=True))
    assert trainer.parts.method.adam.steps == 1


def test_a_run_learns_weights_that_share_one():
    config = replace(LEARNT, epochs=2)
    weights = train_run(config, make_data()).epochs[-1].weights
    assert weights["brightest"] != pytest.approx(0.5, abs=1e-4)
    assert weights["brightest"] + weights["mean->brightest"] == pytest.approx(1)
    assert weights["mean"] + weights["brightest->mean"] == pytest.approx(1)
    fixed = train_run(replace(config, method="SAALe", method_options={}), make_data()).epochs[-1].weights
    assert set(fixed.values()) == {0.5}
