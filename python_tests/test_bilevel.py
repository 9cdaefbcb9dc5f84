"""Looking one step ahead: the virtual step, products along a direction, the gradient by the weights, what stays."""

import copy

import numpy as np
import pytest
import torch
from small_data import make_split
from torch import nn

from mtl_ext import bilevel
from mtl_ext.bilevel.meta_data import meta_batches, meta_share

LR = 0.1
# name -> optimizer's class and options; the steps of all but Rprop-like ones have a derivative.
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": LR}),
    "momentum": (torch.optim.SGD, {"lr": LR, "momentum": 0.9, "weight_decay": 0.05}),
    "dampening": (torch.optim.SGD, {"lr": LR, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (torch.optim.SGD, {"lr": LR, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "foreach": (torch.optim.SGD, {"lr": LR, "momentum": 0.9, "nesterov": True, "foreach": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.05}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "fused": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
}


def rand(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(name, params, steps=0):
    """An optimizer that has made some steps with random gradients."""
    cls, options = OPTIMIZERS[name]
    optimizer = cls(params, **options)
    for step in range(steps):
        for i, param in enumerate(params):
            param.grad = rand(*param.shape, seed=100 + 10 * step + i)
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def moved_for_real(optimizer, params, grads):
    """Where the optimizer's own step leads, by a deep copy of all of it."""
    optimizer, params = copy.deepcopy((optimizer, params))
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()
    return [param.detach() for param in params]


class Quadratic(nn.Module):
    """L_k = |A_k p - b_k|^2 / 2 and F = |C p - d|^2 / 2, for p in two pieces."""

    def __init__(self):
        super().__init__()
        self.first = nn.Parameter(rand(2, 3, seed=0))
        self.second = nn.Parameter(rand(4, seed=1))
        self.systems = [(rand(5, 10, seed=10 + k), rand(5, seed=20 + k)) for k in range(4)]

    def vector(self):
        return torch.cat([self.first.flatten(), self.second])

    def value(self, k):
        matrix, target = self.systems[k]
        return (matrix @ self.vector() - target).square().sum() / 2

    def train_losses(self):
        return {f"task{k}": self.value(k) for k in range(3)}

    def meta_losses(self):
        return [self.value(3)]


def closed_form(net, optimizer, weights):
    """The gradient of F by the weights after one step of SGD, in numpy."""
    group = optimizer.param_groups[0]
    params = [net.first, net.second]
    p = net.vector().detach().numpy()
    systems = [(matrix.numpy(), target.numpy()) for matrix, target in net.systems]
    slopes = [matrix.T @ (matrix @ p - target) for matrix, target in systems]
    grad = weights.numpy() @ np.stack(slopes[:3]) + group["weight_decay"] * p
    buffers = [optimizer.state[param].get("momentum_buffer") for param in params]
    if group["momentum"] and buffers[0] is not None:
        share = 1 - group["dampening"]
        buffer = group["momentum"] * np.concatenate([b.numpy().ravel() for b in buffers]) + share * grad
    else:
        share, buffer = 1.0, grad
    step = grad + group["momentum"] * buffer if group["nesterov"] else buffer
    rate = LR * (1 + group["momentum"] * share if group["nesterov"] else share)
    matrix, target = systems[3]
    v = matrix.T @ (matrix @ (p - LR * step) - target)
    return -rate * np.stack(slopes[:3]) @ v


@pytest.mark.parametrize(("mode", "tolerance"), [("jvp", 1e-6), ("fd", 1e-4)])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", ["sgd", "momentum", "dampening", "nesterov"])
def test_the_gradient_by_the_weights_has_its_closed_form_on_quadratic_losses(name, steps, mode, tolerance):
    net = Quadratic()
    optimizer = made(name, list(net.parameters()), steps)
    weights = torch.tensor([0.1, 0.5, -0.2], dtype=torch.float64)
    expected = closed_form(net, optimizer, weights)
    found = bilevel.hypergradient(net.train_losses, net.meta_losses, net, optimizer, weights, mode=mode)
    np.testing.assert_allclose(found.gradient.numpy(), expected, rtol=tolerance)
    assert found.train.keys == ["task0", "task1", "task2"]
    if name in ("sgd", "momentum"):
        published = bilevel.hypergradient(
            net.train_losses, net.meta_losses, net, optimizer, weights, mode=mode, virtual_step="sgd"
        )
        np.testing.assert_allclose(published.gradient.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamw", "rmsprop", "nesterov"])
def test_the_gradient_by_the_weights_is_that_of_the_loss_after_the_optimizers_own_step(name):
    net = Quadratic()
    params = list(net.parameters())
    optimizer = made(name, params, steps=3)
    weights = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)
    found = bilevel.hypergradient(net.train_losses, net.meta_losses, net, optimizer, weights)

    def after(weights):
        grads = torch.autograd.grad(weights @ torch.stack(list(net.train_losses().values())), params)
        moved = moved_for_real(optimizer, params, grads)
        return torch.func.functional_call(_Meta(net), dict(zip(("net.first", "net.second"), moved, strict=True)), ())

    h = 1e-5
    numeric = [(after(weights + h * e) - after(weights - h * e)) / (2 * h) for e in torch.eye(3, dtype=torch.float64)]
    torch.testing.assert_close(found.gradient, torch.stack(numeric).detach(), rtol=1e-6, atol=0)


class _Meta(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self):
        return self.net.meta_losses()[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 3])
def test_a_virtual_step_is_the_optimizers_step_and_changes_nothing(name, steps):
    params = [nn.Parameter(rand(3, 4, seed=i)) for i in range(3)]
    optimizer = made(name, params, steps)
    optimizer.add_param_group({"params": [nn.Parameter(rand(4, seed=7))], "lr": 0.5 * LR})
    torch.optim.lr_scheduler.StepLR(optimizer, 1)  # wraps the optimizer's step
    params += [optimizer.param_groups[1]["params"][0], nn.Parameter(rand(2, seed=8))]  # the last is not the optimizer's
    grads = [rand(3, 4, seed=30), None, rand(3, 4, seed=31), rand(4, seed=32), rand(2, seed=33)]
    before = copy.deepcopy((params, optimizer.state_dict(), optimizer.defaults))
    step = bilevel.VirtualStep(optimizer, params, grads)
    step.pull_back(grads)
    for mine, real in zip(step.params, moved_for_real(optimizer, params, grads), strict=True):
        assert torch.equal(mine, real)
    assert torch.equal(step.params[1], params[1])
    assert torch.equal(step.params[4], params[4])
    for param, old in zip(params, before[0], strict=True):
        assert torch.equal(param, old)
        assert param.grad is None
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)
    assert optimizer.defaults == before[2]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_virtual_step_knows_how_it_depends_on_the_gradient(name):
    params = [nn.Parameter(rand(3, 4, seed=i)) for i in range(2)]
    optimizer = made(name, params, steps=3)
    grads, v = [rand(3, 4, seed=40 + i) for i in range(2)], [rand(3, 4, seed=50 + i) for i in range(2)]
    pulled = bilevel.VirtualStep(optimizer, params, grads).pull_back([v[0], None])
    h = 1e-5
    sides = [moved_for_real(optimizer, params, [g + sign * h for g in grads]) for sign in (1, -1)]
    slope = (sides[0][0] - sides[1][0]) / (2 * h)  # each entry depends on its own gradient alone
    torch.testing.assert_close(pulled[0], slope * v[0], rtol=1e-5, atol=1e-9)
    assert not pulled[1].any()


def test_an_entry_that_never_had_a_gradient_does_not_spoil_adams_derivative():
    param = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([param])
    pulled = bilevel.VirtualStep(optimizer, [param], [torch.tensor([0.0, 1.0, 0.0])]).pull_back([torch.ones(3)])
    assert pulled[0].isfinite().all()


def test_forms_and_optimizers_that_cannot_be_are_named():
    param = nn.Parameter(torch.ones(2))
    optimizer, grads = torch.optim.Adafactor([param], lr=0.5), [torch.ones(2)]
    with pytest.raises(ValueError, match="form is 'adam', expected one of 'own', 'sgd'"):
        bilevel.VirtualStep(optimizer, [param], grads, form="adam")
    own = bilevel.VirtualStep(optimizer, [param], grads)
    assert torch.equal(own.params[0], moved_for_real(optimizer, [param], grads)[0])
    with pytest.raises(ValueError, match=r"optimizer is Adafactor, which cannot be differentiated.*'sgd'"):
        own.pull_back(grads)
    published = bilevel.VirtualStep(optimizer, [param], grads, form="sgd")
    assert published.params[0].tolist() == [0.5, 0.5]
    assert published.pull_back([None])[0].tolist() == [0.0, 0.0]
    assert published.pull_back(grads)[0].tolist() == [-0.5, -0.5]


class ConvNet(nn.Module):
    """Two tasks on images; BatchNorm, ReLU, max pooling and dropout on the way."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3), nn.Flatten()
        )
        self.heads = nn.ModuleList([nn.Linear(36, 3), nn.Linear(36, 1)])
        self.double()

    def losses(self, seed=0):
        z = self.trunk(rand(6, 2, 8, 8, seed=seed))
        classes = torch.randint(3, (6,), generator=torch.Generator().manual_seed(seed))
        return {"class": nn.functional.cross_entropy(self.heads[0](z), classes), "sum": self.heads[1](z).abs().mean()}


@pytest.mark.parametrize("mode", ["jvp", "fd"])
@pytest.mark.parametrize("virtual_step", ["own", "sgd"])
def test_parameters_statistics_and_random_numbers_are_the_same_bits_afterwards(mode, virtual_step):
    net = ConvNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(net.losses().values()).backward()
    optimizer.step()
    grads = [param.grad.clone() for param in net.parameters()]
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    identities = [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    rng = torch.get_rng_state()

    def look(meta=lambda: net.losses(seed=1)):
        weights = torch.ones(2, dtype=torch.float64)
        return bilevel.hypergradient(net.losses, meta, net, optimizer, weights, mode=mode, virtual_step=virtual_step)

    def fails():
        net.losses()
        raise KeyError("no such label")

    found = look()
    with pytest.raises(KeyError, match="no such label"):
        look(fails)
    assert torch.equal(torch.get_rng_state(), rng)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[0][name]), name
    assert identities == [id(tensor) for tensor in (*net.parameters(), *net.buffers())]
    torch.testing.assert_close(optimizer.state_dict(), before[1], rtol=0, atol=0)
    assert all(torch.equal(param.grad, grad) for param, grad in zip(net.parameters(), grads, strict=True))
    # The virtual passes had the very dropout masks that the step itself has now.
    assert found.train.values.tolist() == [loss.item() for loss in net.losses().values()]
    assert net.trunk[1].num_batches_tracked == 2


def exact_products(net, direction):
    """<d L_k / d params, direction> by one backward pass per task, with the next forward pass's dropout masks."""
    with torch.random.fork_rng(devices=[]):
        losses = net.losses()
    products = []
    for loss in losses.values():
        grads = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, materialize_grads=True)
        products.append(sum((g * d).sum() for g, d in zip(grads, direction.values(), strict=True)))
    return torch.stack(products)


def test_forward_mode_is_exact_where_the_finite_difference_crosses_kinks():
    net = ConvNet()
    direction = {name: rand(*param.shape, seed=i) for i, (name, param) in enumerate(net.named_parameters())}
    expected = exact_products(net, direction)
    torch.testing.assert_close(bilevel.task_products(net.losses, net, direction), expected, rtol=1e-10, atol=0)
    errors = [
        ((bilevel.task_products(net.losses, net, direction, mode="fd", radius=radius) - expected) / expected).abs()
        for radius in (0.01, 1.0)
    ]
    assert errors[0].max() < 5e-2
    assert errors[0].max() < errors[1].max()


def test_only_what_the_direction_names_moves():
    net = ConvNet()
    direction = {"heads.1.weight": rand(1, 36, seed=0)}
    for mode in ("jvp", "fd"):
        products = bilevel.task_products(net.losses, net, direction, mode=mode)
        assert products[0] == 0
        assert products[1] != 0
        zero = bilevel.task_products(net.losses, net, {"heads.1.weight": torch.zeros(1, 36).double()}, mode=mode)
        assert zero.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="mode is 'exact', expected 'jvp' or 'fd'"):
        bilevel.task_products(net.losses, net, direction, mode="exact")


def test_attention_has_a_forward_mode_pass():
    torch.manual_seed(0)
    net = nn.MultiheadAttention(4, 2, batch_first=True).double()
    net.losses = lambda: {"one": net(*[rand(2, 3, 4, seed=1)] * 3, need_weights=False)[0].square().mean()}
    direction = {name: rand(*param.shape, seed=i) for i, (name, param) in enumerate(net.named_parameters())}
    torch.testing.assert_close(bilevel.task_products(net.losses, net, direction), exact_products(net, direction))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_parts_of_the_model_are_looked_ahead_with_as_well():
    net = Quadratic()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    weights = torch.tensor([0.1, 0.5, -0.2], dtype=torch.float64)
    compiled = torch.compile(net.train_losses, backend="aot_eager")
    for mode in ("jvp", "fd"):
        found = bilevel.hypergradient(compiled, net.meta_losses, net, optimizer, weights, mode=mode)
        np.testing.assert_allclose(found.gradient.numpy(), closed_form(net, optimizer, weights), rtol=1e-6)


def test_an_operator_without_a_forward_mode_formula_says_what_to_do():
    net = nn.Linear(3, 2).double()

    def losses():
        return [torch.cdist(net(rand(4, 3, seed=0)), rand(5, 2, seed=1)).mean()]

    direction = {"weight": rand(2, 3, seed=2)}
    with pytest.raises(RuntimeError, match=r"forward-mode pass failed: .*_cdist_forward.*set mode='fd'"):
        bilevel.task_products(losses, net, direction)
    grads = torch.autograd.grad(losses()[0], net.weight)
    product = bilevel.task_products(losses, net, direction, mode="fd")
    torch.testing.assert_close(product[0], (grads[0] * direction["weight"]).sum(), rtol=1e-3, atol=0)


def test_what_cannot_be_looked_ahead_to_is_named():
    net, other = Quadratic(), Quadratic()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    weights = torch.ones(3, dtype=torch.float64)
    for train, meta, given, message in (
        (other.train_losses, net.meta_losses, weights, "train_losses reaches no parameter of model.*not a copy"),
        (net.train_losses, other.meta_losses, weights, "meta_losses reaches no parameter of model"),
        (net.train_losses, net.meta_losses, weights[:2], r"weights has shape \[2\], expected \[K\] = \[3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            bilevel.hypergradient(train, meta, net, optimizer, given)
    with pytest.raises(ValueError, match="model has no parameter that requires grad"):
        bilevel.hypergradient(net.train_losses, net.meta_losses, net.requires_grad_(False), optimizer, weights)


def test_frozen_parameters_and_a_surrounding_no_grad_do_no_harm():
    net = Quadratic()
    net.second.requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with torch.no_grad():
        found = bilevel.hypergradient(
            net.train_losses, net.meta_losses, net, optimizer, torch.ones(3, dtype=torch.float64)
        )
    train = [torch.autograd.grad(loss, net.first)[0] for loss in net.train_losses().values()]
    with torch.no_grad():
        net.first -= 0.1 * sum(train)
    v = torch.autograd.grad(net.meta_losses()[0], net.first)[0]
    torch.testing.assert_close(found.gradient, torch.stack([-0.1 * (g * v).sum() for g in train]))


def test_the_chain_rule_goes_from_weights_to_what_they_are_a_function_of():
    values, gradient = rand(4, seed=0), rand(4, seed=1)
    weights = np.exp(values.numpy()) / np.exp(values.numpy()).sum()
    expected = (np.diag(weights) - np.outer(weights, weights)) @ gradient.numpy()
    with torch.no_grad():
        found = bilevel.chain_rule(lambda values: values.softmax(0), values, gradient)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_meta_data_is_the_training_data_again_or_a_share_of_it():
    assert meta_share("train_reshuffle") == 0
    assert meta_share("holdout:0.1") == 0.1
    for text in ("holdout", "holdout:0", "holdout:1", "holdout:many", "test"):
        with pytest.raises(ValueError, match=f"meta_data is '{text}', expected 'train_reshuffle' or 'holdout:SHARE'"):
            meta_share(text)


def test_meta_batches_go_on_over_passes_and_can_be_taken_up_anywhere():
    split = make_split(10, 0)

    def first(count, skip=0):
        source = meta_batches(split, 4, torch.Generator().manual_seed(3), skip)
        return [next(source).inputs for _ in range(count)]

    batches = first(7)
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2, 4]
    for start in (0, 3, 6):
        seen = torch.cat(batches[start : start + 3]).flatten(1)
        assert all(any(torch.equal(row, image) for row in split.inputs.flatten(1)) for image in seen)
    assert not torch.equal(batches[0], batches[3])
    for skip in range(7):
        assert torch.equal(first(1, skip)[0], batches[skip])
    with pytest.raises(ValueError, match="split is empty"):
        next(meta_batches(make_split(0, 0), 4, torch.Generator()))
