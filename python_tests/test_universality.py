"""Universality: a hand-worked case, an independent oracle, and the bound behind Theorem 1."""

import itertools

import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from mtl_ext.data.losses import pixel_cross_entropy
from mtl_ext.metrics import universality

CE = functional.cross_entropy


def case(seed=0, classes=3, samples=40, noise=0.5):
    """An arbitrary linear softmax head, features that know the class, classes."""
    torch.manual_seed(seed)
    targets = torch.randint(classes, (samples,))
    centres = torch.randn(classes, 4)
    head = nn.Linear(4, classes)
    return head, centres[targets] + noise * torch.randn(samples, 4), targets


def test_the_losses_agree_with_an_independent_optimiser():
    head, z, y = case()
    result = universality(head, z, y, CE, permutation="none", ridge=1e-3)
    data, weights = z.double(), torch.cat([head.weight, head.bias[:, None]], dim=1).detach().double()

    def objective(flat):
        table = torch.tensor(flat).reshape(3, 5).requires_grad_()
        value = CE(data @ table[:, :4].T + table[:, 4], y) + 0.5e-3 * table.square().sum()
        value.backward()
        return value.item(), table.grad.flatten().numpy()

    best = torch.tensor(minimize(objective, weights.flatten().numpy(), jac=True, tol=1e-12).x).reshape(3, 5)
    optimal = CE(data @ best[:, :4].T + best[:, 4], y)
    arbitrary = CE(head.double()(data), y)
    assert result.optimal_loss == pytest.approx(optimal.item(), rel=1e-6)
    assert result.arbitrary_loss == pytest.approx(arbitrary.item(), rel=1e-12)
    assert result.value == pytest.approx(1 / (arbitrary - optimal).item(), rel=1e-6)
    assert result.distance == pytest.approx((best - weights).norm().item(), rel=1e-4)
    assert result.gap < 1e-8


def test_a_global_permutation_is_the_best_of_all():
    head, z, y = case()
    losses = {order: CE(head(z), torch.tensor(order)[y]).item() for order in itertools.permutations(range(3))}
    result = universality(head, z, y, CE)
    assert result.permutation == min(losses, key=losses.get)
    assert result.arbitrary_loss == pytest.approx(min(losses.values()), rel=1e-5)


def test_per_sample_takes_the_best_class_of_each():
    head, z, y = case()
    expected = torch.stack([CE(head(z), torch.full_like(y, c), reduction="none") for c in range(3)]).min(dim=0).values
    result = universality(head, z, y, CE, permutation="per_sample")
    assert result.arbitrary_loss == pytest.approx(expected.mean().item(), rel=1e-5)
    assert result.permutation is None


def test_pixels_without_a_label_do_not_count():
    torch.manual_seed(0)
    head, z = nn.Conv2d(4, 3, 1), torch.randn(2, 4, 5, 5)
    y = torch.randint(-1, 3, (2, 5, 5))
    losses = [
        pixel_cross_entropy(head(z), torch.where(y < 0, y, torch.tensor(order)[y]))
        for order in itertools.permutations(range(3))
    ]
    result = universality(head, z, y, pixel_cross_entropy, ridge=1e-2)
    assert result.arbitrary_loss == pytest.approx(min(losses).item(), rel=1e-5)


def test_regression_has_nothing_to_permute():
    torch.manual_seed(0)
    z, y = torch.randn(9, 2, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    head = nn.Linear(2, 1).double()
    result = universality(head, z, y, functional.mse_loss, permutation="none", ridge=1e-9)
    design = torch.cat([z, torch.ones(9, 1)], dim=1)
    residual = y - design @ torch.linalg.lstsq(design, y).solution
    assert result.optimal_loss == pytest.approx(residual.square().mean().item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"targets are torch\.float64, expected int64 classes to permute"):
        universality(head, z, y, functional.mse_loss)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("permutation", ["none", "global"])
def test_the_bound_behind_theorem_1_holds_for_a_softmax_head(seed, permutation):
    result = universality(*case(seed), CE, permutation=permutation)
    assert 1 / result.value <= result.bound


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("permutation", ["none", "global"])
def test_universality_falls_when_the_norm_grows_along_a_path_of_encoders(seed, permutation):
    """From features that the arbitrary head reads rightly towards others that know the class as well."""
    head, other, y = case(seed, samples=60)
    logits = 3 * (2 * functional.one_hot(y, 3).float() - 1 - head.bias.detach())
    readable = logits @ torch.linalg.pinv(head.weight.detach()).T
    path = [(1 - t) * readable + t * other for t in torch.linspace(0, 0.6, 5)]
    results = [universality(head, z, y, CE, permutation=permutation, ridge=1e-2) for z in path]
    norms, values = [result.norm for result in results], [result.value for result in results]
    assert norms == sorted(norms)
    assert values == sorted(values, reverse=True)


def test_an_optimal_head_is_infinitely_universal():
    head, z, y = case()
    best = universality(head, z, y, CE, permutation="none", ridge=1e-2)
    assert best.value < float("inf")
    assert universality(head, z, y, lambda out, target: 0.0 * out.sum(), permutation="none").value == float("inf")


def test_options_that_cannot_be_are_named():
    head, z, y = case()
    with pytest.raises(ValueError, match="permutation is 'all', expected one of 'global', 'per_sample', 'none'"):
        universality(head, z, y, CE, permutation="all")
    with pytest.raises(ValueError, match=r"ridge is 0\.0, expected a number above 0"):
        universality(head, z, y, CE, ridge=0.0)
