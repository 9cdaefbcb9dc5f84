"""cagrad against other solvers, its limits, and its derivative."""

import cvxpy
import numpy as np
import pytest
import torch
from cvxpylayers.torch import CvxpyLayer
from op_cases.common import random_gram
from torchjd.aggregation import CAGradWeighting

from mtl_ext import ops

CPU = torch.device("cpu")
FIVE = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def correction(jacobian, weights):
    """``d - g_0`` for the gradients of the rows."""
    return ((weights - 1 / len(jacobian)) @ jacobian).numpy()


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9, 1.2])
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20])
def test_clarabel_finds_no_better_direction(num_tasks, c):
    """The paper's primal problem: the largest smallest inner product in the ball around the mean."""
    jacobian = torch.randn(num_tasks, num_tasks + 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rows, mean = jacobian.numpy(), jacobian.mean(0).numpy()
    d = cvxpy.Variable(rows.shape[1])
    radius = c * np.linalg.norm(mean)
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(rows @ d)), [cvxpy.norm(d - mean) <= radius])
    problem.solve(cvxpy.CLARABEL)
    weights, _, status = ops.cagrad(jacobian @ jacobian.T, c)
    assert status == 0
    found = mean + correction(jacobian, weights)
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-12)
    scale = np.linalg.norm(mean) * np.linalg.norm(rows)
    assert abs((rows @ found).min() - problem.value) <= 1e-6 * scale
    assert np.linalg.norm(found - d.value) <= 1e-3 * np.linalg.norm(mean)


@pytest.mark.parametrize("c", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("num_tasks", [2, 5, 20])
def test_torchjd_weighs_alike(num_tasks, c):
    """To the accuracy of its conic solver, where its absolute cut-off plays no part."""
    gram = random_gram(num_tasks, 2 * num_tasks, 4, CPU)
    torch.testing.assert_close(ops.cagrad(gram, c)[0], CAGradWeighting(c, norm_eps=0.0)(gram), rtol=2e-3, atol=2e-3)


def test_one_task_is_stretched():
    assert ops.cagrad(torch.full((1, 1), 4.0, dtype=torch.float64), 0.4)[0].tolist() == [1.4]


def test_radius_zero_gives_the_mean():
    weights, certificate, status = ops.cagrad(FIVE @ FIVE.T, 0.0)
    assert weights.tolist() == [0.2] * 5
    assert (certificate, status) == (0, 0)


@pytest.mark.parametrize("c", [1.0, 1.5])
def test_large_radius_meets_no_conflict_or_a_stationary_point(c):
    for seed in range(20):
        gram = random_gram(6, 6 if seed % 2 else 3, seed, CPU)
        weights, _, status = ops.cagrad(gram, c)
        if status == 0:
            assert (gram @ weights >= -1e-9 * gram.trace()).all()
        else:
            assert weights @ gram @ weights <= 1e-14 * gram.trace()


def test_epsilon_of_the_gradients_decides_what_is_stationary():
    gram = torch.tensor([[1.0, -1.0 + 1e-9], [-1.0 + 1e-9, 4.0]], dtype=torch.float64)
    gram[1, 1] = 1.0
    assert ops.cagrad(gram)[2] == 0
    assert ops.cagrad(gram, eps=torch.finfo(torch.float32).eps)[2] == 1


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_scale_does_not_matter(scale):
    gram = FIVE @ FIVE.T
    torch.testing.assert_close(ops.cagrad(gram * scale**2)[0], ops.cagrad(gram)[0], rtol=1e-9, atol=1e-12)


def test_zero_gradient_counts_in_the_mean_alone():
    jacobian = torch.cat([FIVE, torch.zeros(1, 9, dtype=torch.float64)])
    weights = ops.cagrad(jacobian @ jacobian.T)[0]
    assert weights[5] == 0
    mean = jacobian.mean(0)
    correction = weights @ jacobian - mean
    torch.testing.assert_close(correction.norm(), 0.4 * mean.norm(), rtol=1e-9, atol=0.0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:cvxpylayers")
def test_derivative_equals_that_of_a_cvxpy_layer():
    """The layer solves for v = weights - 1/K: the multipliers of the paper's primal problem, given |g_0|."""
    generator = torch.Generator().manual_seed(6)
    jacobian = torch.randn(4, 6, dtype=torch.float64, generator=generator).requires_grad_()
    cotangent = torch.randn(6, dtype=torch.float64, generator=generator)
    d, rows, mean, radius = cvxpy.Variable(6), cvxpy.Parameter((4, 6)), cvxpy.Parameter(6), cvxpy.Parameter()
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(rows @ d)), [cvxpy.norm(d - mean) <= radius])
    center = jacobian.mean(0)
    (expected,) = CvxpyLayer(problem, [rows, mean, radius], [d])(jacobian, center, 0.4 * center.norm())
    weights = ops.cagrad(jacobian @ jacobian.T)[0]
    assert (weights > 0.26).sum() > 1
    assert (weights == 0.25).any()
    found = weights @ jacobian
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.autograd.grad(found, jacobian, cotangent),
        torch.autograd.grad(expected, jacobian, cotangent),
        rtol=1e-3,
        atol=1e-3,
    )
