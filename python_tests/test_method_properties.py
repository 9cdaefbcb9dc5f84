"""Named properties: what the combination does when the tasks change places or scale, and what its length is."""

import pytest
import torch
from method_cases import CASES
from nets import forward
from test_methods import combined

from mtl_ext import methods
from mtl_ext.methods import GramMethod

NAMES = sorted(CASES)
GRAM_METHODS = [name for name in NAMES if issubclass(methods.METHODS[name], GramMethod)]


def jacobian(seed, num_tasks=4, columns=9):
    return torch.randn(num_tasks, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def steps(name, order):
    """The combinations and weights of three calls, with the tasks in some order."""
    method = CASES[name].build(4)
    values = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    for step in range(3):
        yield combined(method, jacobian(step)[order], (values + 0.1 * step)[order])
        method.update_performance([0.5] * 4)
        method.end_epoch()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_tasks_matters_only_where_the_method_says_so(name):
    order = torch.tensor([2, 0, 3, 1])
    results = zip(steps(name, torch.arange(4)), steps(name, order), strict=True)
    same = [
        torch.allclose(grad, other, rtol=1e-6, atol=1e-8)
        and torch.allclose(weights[order], other_weights, rtol=1e-6, atol=1e-8)
        for (grad, weights), (other, other_weights) in results
    ]
    assert all(same) == (not CASES[name].order), CASES[name].order


@pytest.mark.parametrize("name", ["EW", "PCGrad", "UPGrad"])
def test_linear_in_the_scale_of_single_tasks(name):
    """Projections do not depend on how long what they project on is: ``A(diag(c) J)`` is linear in c > 0."""
    first, second = torch.tensor([[1.0, 20.0, 0.3, 2.0], [0.5, 1.0, 7.0, 0.1]], dtype=torch.float64)
    for seed in range(10):
        rows = jacobian(seed)
        parts = [combined(CASES[name].build(4), c[:, None] * rows)[0] for c in (first, second, first + 2 * second)]
        torch.testing.assert_close(parts[2], parts[0] + 2 * parts[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["ConFIG", "IMTLG", "MoCo", "NashMTL"])
def test_the_direction_does_not_depend_on_the_scale_of_single_tasks(name):
    scales = torch.tensor([1.0, 200.0, 0.03, 2.0], dtype=torch.float64)
    values = torch.ones(4, dtype=torch.float64)
    for seed in range(10):
        directions = []
        for rows in (jacobian(seed), scales[:, None] * jacobian(seed)):
            grad, _ = combined(CASES[name].build(4), rows, values)
            directions.append(grad / grad.norm())
        cosine = directions[0] @ directions[1]
        assert abs(cosine) == pytest.approx(1.0, abs=1e-6)
        assert cosine > 0 or name == "IMTLG"  # weights that sum to 1 may turn its sign


@pytest.mark.parametrize(("name", "gap"), [("MGDA", 1e-8), ("CvxWeighting", 1e-4)])
@pytest.mark.parametrize("columns", [2, 9])
def test_the_minimum_norm_is_reached_and_conflicts_with_nobody(name, gap, columns):
    for seed in range(10):
        rows = jacobian(seed, columns=columns)
        grad, weights = combined(CASES[name].build(4), rows)
        assert weights.sum().item() == pytest.approx(1.0)
        assert weights.min() >= -gap
        square, trace = grad @ grad, rows.square().sum()
        assert (rows @ grad).min() >= square - max(gap * square, gap * 1e-2 * trace)


@pytest.mark.parametrize("name", [name for name in GRAM_METHODS if not CASES[name].untraced])
def test_weights_are_found_without_a_branch_in_python(name):
    """So that nothing waits for the device; what `MethodCase.untraced` names cannot be traced."""
    torch._dynamo.reset()
    method, reference = CASES[name].build(4), CASES[name].build(4)
    losses = torch.arange(1.0, 5.0, dtype=torch.float64)
    traced = torch.compile(method.applied_weights, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        gram = jacobian(seed) @ jacobian(seed).T
        torch.testing.assert_close(traced(gram, losses), reference.applied_weights(gram, losses))


@pytest.mark.parametrize("name", NAMES)
def test_losses_in_half_precision_give_double_weights(name):
    x = torch.zeros(9, dtype=torch.float16, requires_grad=True)
    method = CASES[name].build(4)
    _, losses = forward(method, lambda: (None, jacobian(0).half() @ x + torch.arange(1.0, 5.0).half()))
    weights = method.backward(losses, shared=[x])
    assert (weights.dtype, x.grad.dtype) == (torch.float64, torch.float16)
    assert x.grad.isfinite().all()
    expected, _ = combined(CASES[name].build(4), jacobian(0).half().double())
    torch.testing.assert_close(x.grad.double(), expected, rtol=1e-2, atol=1e-2)
