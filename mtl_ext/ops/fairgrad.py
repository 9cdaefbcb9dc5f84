"""Alpha-fair weights of the tasks."""

import math

import torch
from torch import Tensor

from mtl_ext.ops.checks import refuse
from mtl_ext.ops.kxk import solve_each, solver_fake
from mtl_ext.ops.nash import alpha_fair
from mtl_ext.ops.registry import define_operator


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        refuse("fairgrad", f"alpha is {alpha:g}, expected a finite number above 0")


def fairgrad_reference(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Damped Newton steps, problem by problem."""
    _check_alpha(alpha)
    return solve_each("fairgrad", gram, lambda problem: alpha_fair(problem, alpha))


def fairgrad_fake(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of fairgrad."""
    _check_alpha(alpha)
    return solver_fake("fairgrad", gram)


_fairgrad = define_operator(
    "fairgrad", "(Tensor gram, float alpha) -> (Tensor, Tensor, Tensor)", fairgrad_reference, fairgrad_fake
)


@torch.no_grad()
def fairgrad(gram: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha-fair weights (FairGrad, Ban & Ji 2024): ``G w = w^(-1/alpha)`` with ``w > 0``.

    ``alpha = 1`` is the Nash bargaining solution (`nash`). Multiplying all gradients by s multiplies the weights by
    ``s^(-2 alpha / (1 + alpha))``: the combined gradient keeps its direction, and its length where ``alpha = 1``.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch.
        alpha: fairness, above 0; the larger, the more the task with the least progress counts.

    Returns:
        weights [..., K] float64, positive; 0 for a task whose gradient is zero.
        certificate [...] float64: for status 0 the relative residual ``max_k |(G w)_k w_k^(1/alpha) - 1|``, for status
        1 ``w^T G w / tr G``.
        status [...] int32: 0 solved; 1 Pareto-stationary: there is no solution because the convex hull of the gradients
        contains 0 (up to rounding), and the weights are the point w of the simplex of minimum norm; 2 non-finite input
        (weights 0, certificate infinite).

    Raises:
        RuntimeError: wrong shape or dtype, or alpha not above 0.
    """
    weights, certificate, status = _fairgrad(gram, alpha)
    return weights, certificate, status
