"""`reduction`: what it multiplies, in every method that has it, and why a few do not."""

import inspect
import re

import pytest
import torch
from method_cases import CASES
from nets import TwoHeads, forward
from test_methods import combined

from mtl_ext import methods
from mtl_ext.methods import METHODS

WITHOUT = ("CRMOGM", "PBI", "PCD")
NAMES = [name for name in sorted(CASES) if name not in WITHOUT]


def jacobian(seed=0, num_tasks=4):
    return torch.randn(num_tasks, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(name, num_tasks=2, **options):
    """A method that weighs heads and bounds nothing: a bound on the length comes after the reduction."""
    options |= {"num_tasks": num_tasks, "weight_heads": True, "max_norm": None}
    known = inspect.signature(METHODS[name]).parameters
    return METHODS[name](**{option: value for option, value in options.items() if option in known})


def trained(method, level, steps=3):
    """Gradients by name and weights, after some steps that change what the method remembers."""
    net = TwoHeads(dtype=torch.float64)
    for _ in range(steps):
        net.zero_grad()
        z, losses = forward(method, net)
        where = {"features": z} if level == "features" else {"shared": net.shared()}
        weights = method.backward(losses, **where)
        if method.second_look:
            method.look_again([0.5 * loss.detach() for loss in losses.values()])
        method.update_performance([0.5, 0.75])
        method.end_epoch()
    return net.grads(), weights


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", ["shared", "features"])
def test_the_mean_is_a_kth_of_the_sum(name, level):
    (mean, mean_weights), (total, total_weights) = (
        trained(build(name, reduction=reduction), level) for reduction in ("mean", "sum")
    )
    torch.testing.assert_close(total_weights, 2 * mean_weights)
    shared = ("trunk",) if level == "features" else ("trunk", "adapter")
    for key, grad in mean.items():
        own = name in ("IAL", "IMTL") and not key.startswith(shared)  # whose heads are not weighed by the weights
        factor = 1 if own else 2
        torch.testing.assert_close(total[key], factor * grad, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_the_documented_one(name):
    default = inspect.signature(METHODS[name]).parameters["reduction"].default
    documented = re.search(r"reduction:[^`]*``\"(\w+)\"``", inspect.getdoc(METHODS[name]))[1]
    assert documented == (build(name).reduction if default is None else default)


def test_methods_without_a_reduction_say_why():
    assert [name for name, cls in METHODS.items() if "reduction" not in inspect.signature(cls).parameters] == [*WITHOUT]
    for name in WITHOUT:
        assert "There is no ``reduction``" in METHODS[name].__doc__


def test_an_average_of_weights_has_the_other_methods_reduction():
    for reduction, total in (("mean", 1.0), ("sum", 4.0)):
        method = methods.CRMOGM(methods.MGDA(reduction=reduction))
        for seed in range(2):
            assert combined(method, jacobian(seed))[1].sum().item() == pytest.approx(total)


def test_excess_risks_have_their_peers_reduction_unless_told():
    for options, total in (
        ({}, 4.0),
        ({"first_step": "raw"}, 1.0),
        ({"reduction": "mean"}, 1.0),
        ({"first_step": "raw", "reduction": "sum"}, 4.0),
    ):
        assert combined(methods.ExcessMTL(4, **options), jacobian())[1].sum().item() == pytest.approx(total)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_bound_holds_after_the_reduction(reduction):
    for method in (methods.NashMTL(4, reduction=reduction), methods.FairGrad(reduction=reduction)):
        bounded = combined(method, jacobian())[0].norm().item()
        free = {"mean": 2.0, "sum": 8.0}[reduction]  # sqrt(K), and K times that
        method.max_norm = None
        assert bounded == pytest.approx(1.0)
        assert combined(method, jacobian())[0].norm().item() == pytest.approx(free)


def test_nash_weighs_heads_by_the_reduced_weights_without_the_bound():
    _, bargaining = combined(methods.NashMTL(4, max_norm=None), jacobian())
    for reduction, factor in (("mean", 1), ("sum", 4)):
        method = methods.NashMTL(4, max_norm=0.1, reduction=reduction)
        _, weights = combined(method, jacobian())
        torch.testing.assert_close(method.head_weights(weights), factor * bargaining)


def test_heads_on_their_own_losses_know_no_reduction():
    mean, total = (trained(methods.MGDA(reduction=reduction), "shared")[0] for reduction in ("mean", "sum"))
    for key in mean:
        torch.testing.assert_close(total[key], mean[key] if key.startswith("heads") else 2 * mean[key])


def test_trained_weights_get_the_gradient_of_what_is_minimised():
    """IMTL's scales, one to each loss, are not part of the sum."""
    losses = torch.tensor([0.5, 2.0, 3.0, 4.0], dtype=torch.float64)
    for name, factor in (("UW", 4), ("IMTLL", 4), ("IMTL", 1)):
        slopes = []
        for reduction in ("mean", "sum"):
            method = build(name, 4, reduction=reduction)
            combined(method, jacobian(), losses)
            slopes.append(next(method.parameters()).grad)
        torch.testing.assert_close(slopes[1], factor * slopes[0])
