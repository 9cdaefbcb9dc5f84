"""Auto-lambda: the published update, what it does to useful and harmful tasks, its state, its errors."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mtl_ext.methods import METHODS, AutoLambda, Method, NonFiniteError


class Net(nn.Module):
    """A small trunk, and a regression head for each task."""

    def __init__(self, tasks=("main", "useful", "noise"), seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Linear(6, 4)
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in tasks})
        self.double()

    def losses(self, inputs, targets):
        z = torch.tanh(self.trunk(inputs))
        return {task: (head(z) - targets[task]).square().mean() for task, head in self.heads.items()}


def draw(seed, count=12):
    """Inputs, and the targets of three tasks: two alike, and noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, dtype=torch.float64, generator=generator)
    signal = torch.sin(inputs @ torch.linspace(-1, 1, 6, dtype=torch.float64))[:, None]
    noise = torch.randn(count, 1, dtype=torch.float64, generator=generator)
    return inputs, {"main": signal, "useful": 2 * signal, "noise": noise}


def train(method, net, optimizer, steps, start=0):
    for step in range(start, start + steps):
        batch, meta = (partial(net.losses, *draw(2 * step + i)) for i in range(2))
        method.update_weights(batch, meta, net, optimizer)
        optimizer.zero_grad()
        method.backward(batch())
        optimizer.step()


class Goals(nn.Module):
    """Three tasks that want one vector at some place: two at about the same, one opposite."""

    def __init__(self):
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def losses(self, inputs, _):
        goals = {"main": 1.0, "useful": 1.2, "harmful": -1.0}
        return {task: (self.vector - goal + 0.1 * inputs[:, :4]).square().mean() for task, goal in goals.items()}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_the_auxiliary_form_raises_useful_tasks_and_lowers_harmful_ones(mode, optimizer):
    net = Goals()
    method = AutoLambda(3, primary="main", lr=3e-3, mode=mode, nonnegative=True)
    train(method, net, optimizer(net.parameters(), lr=0.02), 50)
    main, useful, harmful = method.weights.tolist()
    assert main > 0.15
    assert useful > 0.15
    assert 0 <= harmful < 0.05


def test_the_multi_task_form_looks_at_all_losses_and_the_auxiliary_form_at_the_primary_ones():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    batch, meta = draw(0), draw(1)

    def updated(meta_losses, **options):
        method = AutoLambda(3, **options)
        method.adam.step = lambda values, grad: values.copy_(grad)
        method.update_weights(lambda: net.losses(*batch), meta_losses, net, optimizer)
        return method.weights

    def all_losses():
        return net.losses(*meta)

    everything = updated(all_losses)
    parts = [updated(all_losses, primary=task) for task in ("main", 1, ["noise"])]
    torch.testing.assert_close(everything, sum(parts))
    torch.testing.assert_close(updated(all_losses, primary=["main", "noise"]), parts[0] + parts[2])
    torch.testing.assert_close(updated(lambda: {"main": net.losses(*meta)["main"]}, primary="main"), parts[0])
    with pytest.raises(ValueError, match=r"primary is \['main', 'depth'\], expected names or indices of the losses"):
        updated(all_losses, primary=["main", "depth"])


def published_step(net, optimizer, adam, weights, batch, meta, primary):
    """Algorithm 1 with the finite difference of section 3 of the paper, on copies of the network."""
    params = list(net.parameters())
    losses = torch.stack(list(net.losses(*batch).values()))
    grads = torch.autograd.grad(weights.detach() @ losses, params)
    ahead = copy.deepcopy(net)
    with torch.no_grad():
        for target, param, grad in zip(ahead.parameters(), params, grads, strict=True):
            buffer = optimizer.state[param].get("momentum_buffer", torch.zeros_like(param))
            target.copy_(param - 0.05 * (0.9 * buffer + grad + 1e-3 * param))
    values = ahead.losses(*meta)
    v = torch.autograd.grad(sum(values[task] for task in primary), list(ahead.parameters()), allow_unused=True)
    eps = 0.01 / torch.sqrt(sum(g.square().sum() for g in v if g is not None))
    sides = []
    for sign in (1, -1):
        moved = copy.deepcopy(net)
        with torch.no_grad():
            for param, g in zip(moved.parameters(), v, strict=True):
                if g is not None:
                    param += sign * eps * g
            sides.append(torch.stack(list(moved.losses(*batch).values())))
    weights.grad = -0.05 * (sides[0] - sides[1]) / (2 * eps)
    adam.step()


@pytest.mark.parametrize("options", [{"mode": "fd", "virtual_step": "sgd"}, {"mode": "fd"}, {}])
def test_the_updates_are_the_published_ones(options):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    method = AutoLambda(3, primary=["main", "useful"], lr=1e-2, **options)
    weights = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([weights], lr=1e-2)
    for step in range(5):
        batch, meta = draw(2 * step), draw(2 * step + 1)
        published_step(net, optimizer, adam, weights, batch, meta, ("main", "useful"))
        train(method, net, optimizer, 1, start=step)
        tolerance = 1e-8 if options else 1e-3  # the exact gradient differs from the finite difference
        torch.testing.assert_close(method.weights, weights.detach(), rtol=tolerance, atol=0)


def test_a_used_instance_continues_bit_for_bit():
    def run(method, net, optimizer, start):
        train(method, net, optimizer, 3, start)
        return method.weights

    used, net = AutoLambda(3), Net()
    optimizer = torch.optim.Adam(net.parameters())
    run(used, net, optimizer, 0)
    fresh, other = AutoLambda(3, initial=[1.0, 2.0, 3.0]), Net(seed=1)
    again = torch.optim.Adam(other.parameters())
    for new, old in ((fresh, used), (other, net), (again, optimizer)):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert torch.equal(run(fresh, other, again, 3), run(used, net, optimizer, 3))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_losses_that_are_not_finite_are_named_and_never_reach_the_weights():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    good, bad = draw(0), draw(1)
    bad[1]["useful"][0] = torch.nan
    for first, second in ((good, bad), (bad, good)):
        for nonfinite in ("raise", "skip", "propagate"):
            method = AutoLambda(3, nonfinite=nonfinite)

            def update(method=method, first=first, second=second):
                method.update_weights(lambda: net.losses(*first), lambda: net.losses(*second), net, optimizer)

            if nonfinite == "raise":
                with pytest.raises(NonFiniteError, match=r"losses\['useful'\] is nan"):
                    update()
            else:
                update()
            assert method.weights.tolist() == [0.1] * 3
            assert method.adam.steps == 0
    with pytest.raises(ValueError, match=r"weights has shape \[2\], expected \[K\] = \[3\]"):
        AutoLambda(2).update_weights(lambda: net.losses(*good), lambda: net.losses(*good), net, optimizer)


def test_weights_may_fall_below_zero_unless_they_are_kept_from_it():
    for nonnegative in (False, True):
        net = Goals()
        method = AutoLambda(3, primary="main", initial=1e-3, lr=1e-2, nonnegative=nonnegative)
        train(method, net, torch.optim.SGD(net.parameters(), lr=0.05), 5)
        assert (method.weights.min() >= 0) == nonnegative


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_shared_step_finds_the_same_weights_one_step_later(optimizer):
    found = []
    for shared in (False, True):
        net, method = Net(), AutoLambda(3, primary="main", lr=1e-2, shared_step=shared)
        by = optimizer(net.parameters(), lr=0.05)
        batch, meta = (partial(net.losses, *draw(seed)) for seed in range(2))
        if not shared:
            method.update_weights(batch, meta, net, by)
        applied = method.backward(batch())
        grads = [param.grad.clone() for param in net.parameters()]
        if shared:
            method.update_weights(batch, meta, net, by)
            assert applied.tolist() == [0.1] * 3
            assert all(torch.equal(param.grad, grad) for param, grad in zip(net.parameters(), grads, strict=True))
        found.append(method.weights)
    torch.testing.assert_close(*found, rtol=1e-10, atol=0)
    assert (found[0] != 0.1).all()


def test_a_shared_step_needs_the_gradient_unless_the_step_was_left_out():
    net = Net()
    batch, optimizer = partial(net.losses, *draw(0)), torch.optim.SGD(net.parameters(), lr=0.05)
    with pytest.raises(
        ValueError, match=r"no parameter of model has a \.grad to share: call the method's backward first"
    ):
        AutoLambda(3, shared_step=True).update_weights(batch, batch, net, optimizer)
    method = AutoLambda(3, shared_step=True, nonfinite="skip")
    method.update_weights(batch, batch, net, optimizer)
    assert method.adam.steps == 0


def test_methods_say_that_they_look_ahead():
    for name, method in METHODS.items():
        overridden = method.update_weights is not Method.update_weights
        assert overridden == (method.bilevel or name == "IAL"), name  # which looks ahead if a part of it does
    assert AutoLambda.bilevel
