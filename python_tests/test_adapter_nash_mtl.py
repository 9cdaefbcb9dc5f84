"""This package's methods behind nash-mtl's interface, held to the formulas of its ``methods/weight_methods.py``."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, nnls
from torch import nn

from mtl_ext.adapters.nash_mtl import METHODS, WeightMethods
from mtl_ext.methods import NonFiniteError

OPTIONS = {"stl": {"main_task": 1}, "go4align": {"num_groups": 2}, "dwa": {"iteration_window": 2}}
BATCHES = {"sdmgrad": 3}
NO_LOSS = {"pcgrad", "cagrad", "log_cagrad", "graddrop", "fairgrad", "sdmgrad"}


class Net(nn.Module):
    """A trunk of two layers and three heads, in float64."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1) for _ in range(3)])
        self.double()

    def shared_parameters(self):
        return [*self.first.parameters(), *self.last.parameters()]

    def forward(self, seed=0):
        draw = torch.Generator().manual_seed(seed)
        inputs = torch.randn(9, 5, generator=draw, dtype=torch.float64)
        targets = torch.randn(3, 9, 1, generator=draw, dtype=torch.float64)
        z = self.last(torch.tanh(self.first(inputs)))
        losses = [
            (head(torch.tanh(z)) * (k + 1) - y).square().mean()
            for k, (head, y) in enumerate(zip(self.heads, targets, strict=True))
        ]
        return z, torch.stack(losses)

    def call(self, method, seeds=(0,)):
        features, losses = zip(*(self(seed) for seed in seeds), strict=True)
        return method.backward(
            losses=torch.cat(losses),
            shared_parameters=self.shared_parameters(),
            task_specific_parameters=list(self.heads.parameters()),
            last_shared_parameters=list(self.last.parameters()),
            representation=features[0],
        )

    def jacobian(self, targets, seed=0):
        """Losses [K] and the Jacobian [K, n] with respect to parameters, or to "z"."""
        z, losses = self(seed)
        targets = [z] if targets == "z" else targets
        rows = [torch.autograd.grad(loss, targets, retain_graph=True, allow_unused=True) for loss in losses]
        rows = [
            torch.cat(
                [torch.zeros_like(t).flatten() if g is None else g.flatten() for t, g in zip(targets, row, strict=True)]
            )
            for row in rows
        ]
        return losses.detach().numpy(), torch.stack(rows).numpy()

    def grads(self, params):
        return torch.cat([param.grad.flatten() for param in params]).numpy()


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def normal(count=3):
    return torch.randn(count, generator=torch.Generator().manual_seed(4)).double().numpy()


def min_norm(gram):
    """By non-negative least squares with the sum as a heavy row."""
    scale = gram.trace()
    factor = np.linalg.cholesky(gram / scale + 1e-14 * np.eye(3)).T
    weights = nnls(np.vstack([factor, np.ones(3)]), np.array([0, 0, 0, 1.0]))[0]
    return weights / weights.sum()


def nash(gram):
    result = minimize(
        lambda a: a @ gram @ a / 2 - np.log(a).sum(),
        1 / np.sqrt(gram.diagonal()),
        jac=lambda a: gram @ a - 1 / a,
        bounds=[(1e-9, None)] * 3,
        options={"ftol": 1e-16, "gtol": 1e-12},
    )
    return result.x


def imtl(gram):
    """Equal projections onto all directions, weights that sum to 1."""
    unit = gram / np.sqrt(gram.diagonal())[:, None]
    system = np.vstack([unit[0] - unit[1], unit[0] - unit[2], np.ones(3)])
    return np.linalg.solve(system, np.array([0, 0, 1.0]))


def cagrad(gram, c=0.4):
    mean = np.full(3, 1 / 3)
    radius = c * np.sqrt(mean @ gram @ mean)
    found = minimize(
        lambda w: w @ gram @ mean + radius * np.sqrt(w @ gram @ w),
        mean,
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15, "maxiter": 500},
    ).x
    return 3 * (mean + radius / np.sqrt(found @ gram @ found) * found) / (1 + c**2)


# (Gram matrix, losses) -> weights of the shared parameters and of the heads, before max_norm
FORMULAS = {
    "stl": lambda gram, losses: (np.array([0, 1.0, 0]),) * 2,
    "ls": lambda gram, losses: (np.ones(3),) * 2,
    "uw": lambda gram, losses: (np.full(3, 0.5),) * 2,
    "scaleinvls": lambda gram, losses: (1 / losses,) * 2,
    "rlw": lambda gram, losses: (softmax(normal()),) * 2,
    "dwa": lambda gram, losses: (np.full(3, 1 / 3),) * 2,
    "mgda": lambda gram, losses: (3 * min_norm(gram),) * 2,
    "nashmtl": lambda gram, losses: (nash(gram),) * 2,
    "imtl": lambda gram, losses: (imtl(gram),) * 2,
    "cagrad": lambda gram, losses: (cagrad(gram), np.ones(3)),
    "fairgrad": lambda gram, losses: (3 * nash(gram), np.ones(3)),
    "famo": lambda gram, losses: (1 / losses / (1 / losses).sum(),) * 2,
    "log_imtl": lambda gram, losses: (imtl(gram / np.outer(losses, losses)) / losses,) * 2,
    "log_cagrad": lambda gram, losses: (cagrad(gram / np.outer(losses, losses)) / losses, 1 / losses),
}


def clipped(grad, max_norm):
    return grad * min(1, max_norm / np.linalg.norm(grad)) if max_norm else grad


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_the_formula(name):
    net = Net()
    method = WeightMethods(name, n_tasks=3, device="cpu", **OPTIONS.get(name, {}))
    losses, jacobian = net.jacobian(net.shared_parameters())
    _, heads = net.jacobian(list(net.heads.parameters()))
    shared, own = FORMULAS[name](jacobian @ jacobian.T, losses)
    loss, extra = net.call(method)
    max_norm = {"nashmtl": 1.0, "fairgrad": 1.0, "log_cagrad": 1.0}.get(name, 0)
    np.testing.assert_allclose(
        net.grads(net.shared_parameters()), clipped(shared @ jacobian, max_norm), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(net.grads(net.heads.parameters()), own @ heads, rtol=1e-4, atol=1e-6)
    assert (loss is None) == (name in NO_LOSS)
    assert extra["weights"].shape == (3,)
    if "GTG" in extra and not name.startswith("log"):
        np.testing.assert_allclose(extra["GTG"], jacobian @ jacobian.T)


@pytest.mark.parametrize("params", ["shared", "last", "rep"])
@pytest.mark.parametrize("normalization", ["none", "norm", "loss", "loss+"])
def test_mgda_weighs_the_whole_loss_by_gradients_from_anywhere(params, normalization):
    net = Net()
    targets = {"shared": net.shared_parameters(), "last": list(net.last.parameters()), "rep": "z"}[params]
    losses, compared = net.jacobian(targets)
    scale = {"none": np.ones(3), "loss": losses, "norm": np.linalg.norm(compared, axis=1)}
    scale["loss+"] = scale["loss"] * scale["norm"]
    compared = compared / scale[normalization][:, None]
    weights = 3 * min_norm(compared @ compared.T)
    everything = list(net.parameters())
    expected = weights @ net.jacobian(everything)[1]
    loss, _ = net.call(WeightMethods("mgda", 3, "cpu", params=params, normalization=normalization))
    np.testing.assert_allclose(net.grads(everything), expected, rtol=1e-4, atol=1e-6)
    assert loss.item() == pytest.approx(weights @ losses, rel=1e-4)


def test_log_mgda_steps_as_far_as_famo():
    net = Net()
    losses, jacobian = net.jacobian(list(net.parameters()))
    logs = net.jacobian(net.shared_parameters())[1] / losses[:, None]
    weights = min_norm(logs @ logs.T)
    net.call(WeightMethods("log_mgda", 3, "cpu"))
    expected = weights / losses / (weights / losses).sum() @ jacobian
    np.testing.assert_allclose(net.grads(net.parameters()), expected, rtol=1e-4, atol=1e-6)


def test_sdmgrad_combines_the_first_of_three_batches():
    net = Net()
    jacobians = [net.jacobian(net.shared_parameters(), seed)[1] for seed in (1, 2, 3)]
    products, weights = jacobians[1] @ jacobians[2].T, np.full(3, 1 / 3)
    products /= np.sqrt(np.maximum(products.diagonal(), 0)).mean() ** 2
    velocity = 0.0
    for _ in range(5):
        velocity = velocity / 2 + products @ (weights + 0.2)
        moved = weights - 10 * velocity
        ranked = np.sort(moved)[::-1]
        excess = (np.cumsum(ranked) - 1) / np.arange(1, 4)
        weights = np.maximum(moved - excess[ranked > excess][-1], 0)
    loss, extra = net.call(WeightMethods("sdmgrad", 3, "cpu", lamda=0.6, niter=5, max_norm=0), (1, 2, 3))
    expected = 3 * (weights + 0.2) / 1.6
    np.testing.assert_allclose(extra["weights"], expected)
    np.testing.assert_allclose(net.grads(net.shared_parameters()), expected @ jacobians[0])
    assert loss is None


def test_pcgrad_of_two_conflicting_gradients():
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    directions = torch.tensor([[-4.0, 1.0], [6.0, 1.0]], dtype=torch.float64)
    WeightMethods("pcgrad", 2, "cpu", reduction="mean").backward(directions @ x, shared_parameters=x)
    gram = (directions @ directions.T).numpy()
    weights = 1 - gram[0, 1] / gram.diagonal()
    np.testing.assert_allclose(x.grad, weights @ directions.numpy() / 2)


def test_graddrop_keeps_gradients_of_one_sign():
    net = Net()
    _, jacobian = net.jacobian(net.shared_parameters())
    net.call(WeightMethods("graddrop", 3, "cpu", max_norm=0))
    found = net.grads(net.shared_parameters())
    positive, negative = np.maximum(jacobian, 0).sum(0), np.minimum(jacobian, 0).sum(0)
    assert (np.isclose(found, positive) | np.isclose(found, negative)).all()


def test_go4align_groups():
    net = Net()
    losses, jacobian = net.jacobian(net.shared_parameters())
    shares = softmax(-0.5 * losses)
    indicators = shares * losses.sum() / losses
    order = np.argsort(indicators)
    splits = [(order[:1], order[1:]), (order[:2], order[2:])]
    best = min(splits, key=lambda groups: sum(((indicators[g] - indicators[g].mean()) ** 2).sum() for g in groups))
    weights = np.empty(3)
    for group in best:
        weights[group] = indicators[group].mean()
    net.call(WeightMethods("go4align", 3, "cpu", num_groups=2, robust_step_size=0.5))
    np.testing.assert_allclose(net.grads(net.shared_parameters()), weights @ jacobian)


def test_famo_takes_weight_from_the_task_that_fell_fastest():
    net = Net()
    method = WeightMethods("famo", 3, "cpu", w_lr=0.1)
    method.method.set_min_losses(torch.zeros(3))
    net.call(method)
    method.method.update(net()[1].detach() * torch.tensor([0.5, 1.0, 1.0]))
    _, extra = net.call(method)
    np.testing.assert_allclose(extra["logits"], [-0.1, 0.1, 0.1], rtol=1e-3)  # Adam's first step


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_in_nash_mtls_loop(name):
    net = Net()
    method = WeightMethods(name, n_tasks=3, device=torch.device("cpu"), **OPTIONS.get(name, {}))
    groups = [{"params": net.parameters()}, {"params": method.parameters(), "lr": 0.025}]
    optimizer = torch.optim.Adam(groups, lr=0.02)
    before = net()[1].detach()
    for _ in range(20):
        optimizer.zero_grad()
        loss, extra = net.call(method, (0,) * BATCHES.get(name, 1))
        optimizer.step()
        assert isinstance(extra, dict)
        if name == "famo":
            method.method.update(net()[1].detach())
    after = net()[1].detach()
    assert after[1] < before[1]
    assert (loss is None) == (name in NO_LOSS)


def test_state_is_where_it_is_asked_for_and_trained_weights_are_handed_out():
    (trained,) = WeightMethods("uw", 4, "meta").parameters()
    assert (trained.shape, trained.device.type) == ((4,), "meta")
    assert WeightMethods("nashmtl", 4, "cpu").parameters() == []


def test_bad_arguments_are_named():
    net = Net()
    with pytest.raises(ValueError, match="method is 'nash', expected one of 'stl', 'ls'"):
        WeightMethods("nash", 3, "cpu")
    with pytest.raises(ValueError, match="losses has 3 tasks, expected num_tasks = 2"):
        net.call(WeightMethods("ls", 2, "cpu"))
    with pytest.raises(ValueError, match="params is 'first', expected one of 'shared', 'last', 'rep'"):
        WeightMethods("mgda", 3, "cpu", params="first")
    with pytest.raises(ValueError, match="shared_parameters is None, expected the parameters"):
        WeightMethods("nashmtl", 3, "cpu").backward(net()[1])
    with pytest.raises(ValueError, match="representation is None, expected the tensor that the heads read"):
        WeightMethods("mgda", 3, "cpu", params="rep").backward(net()[1])
    with pytest.raises(NonFiniteError, match=r"losses\[2\] is nan"):
        WeightMethods("ls", 3, "cpu").backward(net()[1] * torch.tensor([1, 1, torch.nan]))
