"""CvxWeighting beyond its row: other layers, derivatives, a missing package."""

import subprocess
import sys

import pytest
import torch
from op_cases.common import random_gram

from mtl_ext import ops
from mtl_ext.methods import CvxWeighting, minimum_norm_layer
from mtl_ext.methods.cvx_weighting import symmetric_root

cp = pytest.importorskip("cvxpy")
pytest.importorskip("cvxpylayers")
CPU = torch.device("cpu")
LOSSES = torch.ones(4, dtype=torch.float64)


def weights_and_derivative(solve, gram):
    gram = gram.clone().requires_grad_()
    weights = solve(gram)
    (weights @ torch.arange(1.0, 5.0, dtype=torch.float64)).backward()
    return weights.detach(), gram.grad


@pytest.mark.parametrize("rank", [9, 4])
def test_minimum_norm_agrees_with_the_solver_in_value_and_derivative(rank):
    for seed in range(5):
        gram = random_gram(4, rank, seed, CPU)
        weights, derivative = weights_and_derivative(lambda g: CvxWeighting().task_weights(g, LOSSES), gram)
        expected, expected_derivative = weights_and_derivative(lambda g: ops.min_norm(g)[0], gram)
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(
            derivative, expected_derivative, rtol=1e-3, atol=1e-3 * float(derivative.abs().max())
        )


def test_derivative_by_differences():
    gram = random_gram(4, 9, 1, CPU).requires_grad_()
    method = CvxWeighting(minimum_norm_layer(4))
    assert torch.autograd.gradcheck(
        lambda g: method.task_weights((g + g.mT) / 2, LOSSES), gram, eps=1e-2, atol=2e-3, rtol=2e-3
    )


def test_symmetric_root():
    gram = random_gram(5, 9, 0, CPU).requires_grad_()
    assert torch.autograd.gradcheck(lambda g: symmetric_root((g + g.mT) / 2), gram)
    torch.testing.assert_close(symmetric_root(gram) @ symmetric_root(gram), gram)
    singular = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)
    symmetric_root(singular).sum().backward()
    assert singular.grad.isfinite().all()


def test_a_layer_in_the_gram_matrix_itself():
    """The weights nearest to each task's share of the trace."""
    from cvxpylayers.torch import CvxpyLayer

    gram, weights = cp.Parameter((4, 4)), cp.Variable(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(weights - cp.diag(gram))), [cp.sum(weights) == 1])
    layer = CvxpyLayer(problem, parameters=[gram], variables=[weights])
    problem = random_gram(4, 9, 3, CPU, scale=1e9)
    found = CvxWeighting(layer, parameter="gram").task_weights(problem, LOSSES)
    torch.testing.assert_close(found, problem.diagonal() / problem.trace(), rtol=1e-4, atol=1e-4)


def test_a_layer_of_other_size_is_named():
    gram, weights = cp.Parameter((4, 4)), cp.Variable(2)
    from cvxpylayers.torch import CvxpyLayer

    problem = cp.Problem(cp.Minimize(cp.sum_squares(weights - gram[0, :2])))
    layer = CvxpyLayer(problem, parameters=[gram], variables=[weights])
    with pytest.raises(ValueError, match=r"layer's variable has shape \[2\], expected \[K\] = \[4\]"):
        CvxWeighting(layer).task_weights(random_gram(4, 9, 3, CPU), LOSSES)


def test_cvxpylayers_is_imported_late_and_named_when_missing(monkeypatch):
    code = "import sys, mtl_ext.methods; sys.exit('cvxpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "cvxpylayers.torch", None)
    with pytest.raises(ImportError, match=r"CvxWeighting needs cvxpylayers: pip install 'mtl_ext\[cvx\]'"):
        CvxWeighting()
