"""dual_cone against other solvers, and its derivative."""

import cvxpy
import numpy as np
import pytest
import quadprog
import torch
from cvxpylayers.torch import CvxpyLayer
from op_cases.common import random_gram
from op_cases.dual_cone import bounds
from scipy.optimize import nnls
from test_ops import reference_namespace
from torchjd._linalg import QuadprogProjector

from mtl_ext import ops

CPU = torch.device("cpu")


def by_nnls(jacobian, lower):
    """``v = lower + nnls(J^T, -J^T lower)``."""
    return lower + nnls(jacobian.T, -jacobian.T @ lower, maxiter=1000)[0]


def by_quadprog(jacobian, lower):
    num_tasks = len(lower)
    return quadprog.solve_qp(jacobian @ jacobian.T, np.zeros(num_tasks), np.eye(num_tasks), lower)[0]


def by_clarabel(jacobian, lower):
    v = cvxpy.Variable(len(lower))
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(jacobian.T @ v)), [v >= lower])
    problem.solve(cvxpy.CLARABEL)
    return v.value


@pytest.mark.parametrize(("solver", "tolerance"), [(by_nnls, 1e-12), (by_quadprog, 1e-11), (by_clarabel, 1e-3)])
@pytest.mark.parametrize("num_tasks", [1, 2, 3, 8, 20])
def test_other_solvers_find_the_same_combination(solver, tolerance, num_tasks):
    jacobian = torch.randn(num_tasks, num_tasks + 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    lower = bounds(num_tasks, 3, CPU)[:5]
    weights, _, status = ops.dual_cone(jacobian @ jacobian.T, lower)
    assert (status == 0).all()
    for low, found in zip(lower.numpy(), (weights @ jacobian).numpy(), strict=True):
        expected = jacobian.numpy().T @ solver(jacobian.numpy(), low)
        assert np.abs(found - expected).max() <= tolerance * np.abs(jacobian.numpy().T @ low).max()


@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_torchjd_projects_alike(num_tasks):
    """With its two epsilons at 0, and a matrix that needs neither."""
    gram = random_gram(num_tasks, 2 * num_tasks, 4, CPU)
    lower = torch.eye(num_tasks, dtype=torch.float64) / num_tasks
    expected = QuadprogProjector(norm_eps=0.0, reg_eps=0.0)(lower, gram)
    torch.testing.assert_close(ops.dual_cone(gram, lower)[0], expected, rtol=1e-9, atol=1e-12)


def test_dependent_gradients_have_one_projection():
    """In six dimensions of rank two, with duplicates and opposites, by a solver that sees the gradients."""
    plane = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    mixing = torch.tensor([[1, 0], [1, 0], [-1, 0], [0, 1], [1, 1], [-1, 2]], dtype=torch.float64)
    for jacobian in (mixing @ plane, mixing[:3] @ plane, mixing[3:] @ plane):
        lower = bounds(len(jacobian), 7, CPU)[[0, 1, 2, 4]]
        weights, certificate, _ = ops.dual_cone(jacobian @ jacobian.T, lower)
        assert (certificate <= 1e-8).all()
        for low, found in zip(lower.numpy(), (weights @ jacobian).numpy(), strict=True):
            expected = jacobian.numpy().T @ by_nnls(jacobian.numpy(), low)
            np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scales_do_not_matter(scale):
    gram, lower = random_gram(5, 4, 0, CPU), bounds(5, 0, CPU)
    expected = ops.dual_cone(gram, lower)[0]
    torch.testing.assert_close(ops.dual_cone(gram * scale**2, lower)[0], expected, rtol=1e-6, atol=1e-9)
    lengths = scale ** torch.linspace(0, 1, 5, dtype=torch.float64)
    spread = ops.dual_cone(gram * lengths * lengths[:, None], lower / lengths)[0] * lengths
    torch.testing.assert_close(spread, expected, rtol=1e-6, atol=1e-9)


def test_gram_of_float32_gradients_gives_bounded_weights():
    """Its negative eigenvalues are a million times those of float64 rounding."""
    jacobian = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    gram = ops.gram(list(torch.cat([jacobian, -jacobian])), 24)
    lower = torch.eye(24, dtype=torch.float64)
    weights, certificate, status = ops.dual_cone(gram, lower)
    assert (status == 0).all()
    assert (weights <= 100).all()
    assert (certificate <= 0.1).all()
    gram.diagonal().mul_(1 + 24 * torch.finfo(torch.float32).eps)
    assert (ops.dual_cone(gram, lower)[1] <= 1e-8).all()


@pytest.mark.parametrize("implementation", ("reference", "kernel"))
def test_derivative_in_gram_and_bounds(implementation):
    function = getattr(torch.ops, "mtl_ext" if implementation == "kernel" else reference_namespace()).dual_cone
    gram = torch.stack([random_gram(4, 9, seed, CPU) for seed in range(2)]).requires_grad_()
    lower = bounds(4, 1, CPU)[[0, 1, 2, 4]].expand(2, -1, -1).clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda g, low: function((g + g.mT) / 2, low)[0], (gram, lower))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:cvxpylayers")
def test_derivative_equals_that_of_a_cvxpy_layer():
    num_tasks = 4
    generator = torch.Generator().manual_seed(12)
    jacobian = torch.randn(num_tasks, 6, dtype=torch.float64, generator=generator).requires_grad_()
    lower = torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64).requires_grad_()
    cotangent = torch.randn(num_tasks, dtype=torch.float64, generator=generator)
    v, rows, low = cvxpy.Variable(num_tasks), cvxpy.Parameter((num_tasks, 6)), cvxpy.Parameter(num_tasks)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(rows.T @ v)), [v >= low])
    (expected,) = CvxpyLayer(problem, [rows, low], [v])(jacobian, lower)
    weights = ops.dual_cone(jacobian @ jacobian.T, lower[None])[0][0]
    assert (weights > lower + 1e-3).any()
    assert (weights == lower).any()
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(
        torch.autograd.grad(weights, [jacobian, lower], cotangent),
        torch.autograd.grad(expected, [jacobian, lower], cotangent),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def test_unsolved_problems_and_zero_gradients_have_no_derivative():
    gram = torch.full((3, 3, 3), torch.nan, dtype=torch.float64)
    gram[1] = 0.0
    gram[2] = torch.eye(3)
    gram[2, 1, 1] = 0.0
    gram.requires_grad_()
    lower = torch.ones(3, 2, 3, dtype=torch.float64, requires_grad=True)
    ops.dual_cone(gram, lower)[0].sum().backward()
    assert (gram.grad == 0).all()
    assert (lower.grad[:2] == 0).all()
    assert lower.grad[2].tolist() == [[1.0, 0.0, 1.0]] * 2
