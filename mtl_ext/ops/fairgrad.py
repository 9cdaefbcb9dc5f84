"""Alpha-fair weights of the tasks."""

import math
from typing import Any

from torch import Tensor

from mtl_ext.ops.checks import refuse
from mtl_ext.ops.kxk import solve_each, solver_fake, solver_setup_context
from mtl_ext.ops.nash import alpha_fair, alpha_fair_backward
from mtl_ext.ops.registry import define_operator


def _check_alpha(alpha: float) -> None:
    if not (alpha > 0 and math.isfinite(alpha)):
        refuse("fairgrad", f"alpha is {alpha:g}, expected a finite number above 0")


def fairgrad_reference(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method, problem by problem."""
    _check_alpha(alpha)
    return solve_each("fairgrad", gram, lambda problem: alpha_fair(problem, alpha))


def fairgrad_fake(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of fairgrad."""
    _check_alpha(alpha)
    return solver_fake("fairgrad", gram)


def fairgrad_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor, None]:
    """Derivative of the weights in the Gram matrix."""
    return alpha_fair_backward(ctx, cotangent, *ctx.options), None


_fairgrad = define_operator(
    "fairgrad",
    "(Tensor gram, float alpha) -> (Tensor, Tensor, Tensor)",
    fairgrad_reference,
    fairgrad_fake,
    solver_setup_context,
    fairgrad_backward,
)


def fairgrad(gram: Tensor, alpha: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Alpha-fair weights (FairGrad, Ban & Ji 2024): ``G w = w^(-1/alpha)`` with ``w > 0``.

    ``alpha = 1`` is the Nash bargaining solution (`nash`). Multiplying all gradients by s multiplies the weights by
    ``s^(-2 alpha / (1 + alpha))``: the combined gradient keeps its direction, and its length where ``alpha = 1``. The
    authors' code hands the equation to a general least-squares solver.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch.
        alpha: fairness, above 0; the larger, the more the task with the least progress counts.

    Returns:
        weights [..., K] float64, positive (or too small for a float64); 0 for a task whose gradient is zero.
        certificate [...] float64: for status 0 the residual, the largest ``|(G w)_k - w_k^(-1/alpha)|`` relative to
        ``w_k^(-1/alpha)`` or to 1e-6 of ``sum_j |G_kj| w_j``, whichever is larger (where gradients cancel in G w,
        rounding alone is larger than 1e-8 of the former); above 1e-8 only where the iteration did not end, which is
        known from ``alpha = 0.1`` with gradients of lengths 10 decades apart. For status 1 ``w^T G w`` relative to
        ``(sum_k w_k |g_k|)^2``, at most 1e-14 K.
        status [...] int32: 0 solved; 1 Pareto-stationary: there is no solution because the convex hull of the gradients
        contains 0 (up to rounding), as the weights w on the simplex show; 2 non-finite input (weights 0, certificate
        infinite).
        The weights of solved problems are differentiable in a symmetric ``gram``.

    Raises:
        RuntimeError: wrong shape or dtype, or alpha not above 0.
    """
    weights, certificate, status = _fairgrad(gram, alpha)
    return weights, certificate, status
