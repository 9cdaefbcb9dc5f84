"""The Nash bargaining solution of the tasks, and the equation it shares with FairGrad."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.kxk import (
    PARETO_STATIONARY,
    SOLVED,
    solve_each,
    solved_problem,
    solver_fake,
    solver_setup_context,
    symmetric_product,
)
from mtl_ext.ops.min_norm import minimum_norm
from mtl_ext.ops.registry import define_operator

# The residual of a task is relative to its target or to this part of the magnitudes that cancel in (G w)_k.
RESIDUAL_FLOOR = 1e-6
# Where x is held, far below what a float64 can add to the others.
SMALLEST = 1e-260
# Squared length, over K, below which a combination of the unit gradients counts as 0.
STATIONARY = 1e-14


def alpha_fair(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, int]:
    """Solves ``G w = w^(-1/alpha)`` for one problem [K, K] without zero gradients, by Newton's method.

    In units in which the gradients have length 1: ``S x = t(x) = d^(1/alpha - 1) * x^(-1/alpha)`` with
    ``S = D^-1 G D^-1``, ``D = sqrt(diag G)``, ``d = D / sqrt(tr G)`` and ``x = d * w``. A task that loses follows its
    Newton step in t instead of in x, so that x stays positive; small steps follow whichever is larger.
    """
    lengths, trace = gram.diagonal().sqrt(), gram.trace()
    unit = (gram + gram.T) / 2 / lengths / lengths[:, None]
    unit.fill_diagonal_(1.0)
    weights, _, _ = minimum_norm(unit)
    square = (weights @ unit @ weights).clamp_min(0.0)
    if square <= STATIONARY * len(gram):
        weights = weights / lengths
        return weights / weights.sum(), square, PARETO_STATIONARY
    log_scale = (1 / alpha - 1) * (lengths / trace.sqrt()).log()
    x = ((log_scale - unit.abs().sum(1).log()) * alpha / (1 + alpha)).exp()
    for _ in range(500):
        x = x.clamp(SMALLEST, 1e90)
        target = (log_scale - x.log() / alpha).clamp(-300.0, 300.0).exp()
        excess, magnitude = unit @ x - target, unit.abs() @ x
        error = excess.abs().where((x > SMALLEST) | (excess < 0), 0.0)
        if (error <= 1e-11 * target + 4e-15 * magnitude).all():
            break
        root = (x / target).sqrt()
        system = root[:, None] * unit * root + torch.eye(len(gram), dtype=gram.dtype, device=gram.device) / alpha
        growth = torch.linalg.solve(system, -root * excess) / (root * target)
        along_target = (root < 1).where(growth.abs() < 0.1 * min(1.0, alpha), growth < 0)
        x = x * (-alpha * (-growth / alpha).clamp_min(-0.1).log1p()).exp().where(along_target, 1 + growth)
    residual = (error / torch.maximum(target, RESIDUAL_FLOOR * magnitude)).max()
    return x / lengths * trace ** (0.5 - alpha / (1 + alpha)), residual, SOLVED


def alpha_fair_backward(ctx: Any, cotangent: Tensor, alpha: float) -> Tensor:
    """Implicit differentiation: ``(G + diag(w^(-1/alpha - 1) / alpha)) dw = -dG w``.

    With ``E = diag(w)^((1 + 1/alpha) / 2)`` the matrix is ``E^-1 (1/alpha + E G E) E^-1``, and the tasks of weight 0
    fall out.
    """
    gram, weights, cotangent = solved_problem(ctx, cotangent)
    root = weights ** ((1 + 1 / alpha) / 2)
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    system = root[..., :, None] * gram * root[..., None, :] + unit / alpha
    adjoint = root * torch.linalg.solve(system, root * cotangent)
    return symmetric_product(-adjoint, weights)


def nash_reference(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method, problem by problem."""
    return solve_each("nash", gram, lambda problem: alpha_fair(problem, 1.0))


def nash_fake(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of nash."""
    return solver_fake("nash", gram)


def nash_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> Tensor:
    """Derivative of the weights in the Gram matrix."""
    return alpha_fair_backward(ctx, cotangent, 1.0)


_nash = define_operator(
    "nash",
    "(Tensor gram) -> (Tensor, Tensor, Tensor)",
    nash_reference,
    nash_fake,
    solver_setup_context,
    nash_backward,
)


def nash(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the Nash bargaining solution (Nash-MTL, Navon et al. 2022, Claim 3.1): ``G a = 1 / a`` with ``a > 0``.

    The combined gradient always has length ``sqrt(K)`` (K counting the tasks whose gradient is not zero). Multiplying a
    task's gradient by s divides its weight by s. The authors' code iterates a convex approximation with a general
    solver and returns the last iterate, solution or not.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch.

    Returns:
        weights [..., K] float64, positive; 0 for a task whose gradient is zero.
        certificate [...] float64: for status 0 the residual, the largest ``|(G a)_k - 1 / a_k|`` relative to
        ``1 / a_k`` or to 1e-6 of ``sum_j |G_kj| a_j``, whichever is larger (nearly opposite gradients cancel in G a, so
        that rounding alone is larger than 1e-8 of ``1 / a_k``); above 1e-8 only where the iteration did not end. For
        status 1 ``w^T G w`` relative to ``(sum_k w_k |g_k|)^2``, at most 1e-14 K.
        status [...] int32: 0 solved; 1 Pareto-stationary: there is no solution because the convex hull of the gradients
        contains 0 (up to rounding), as the weights w on the simplex show; 2 non-finite input (weights 0, certificate
        infinite).
        The weights of solved problems are differentiable in a symmetric ``gram``.

    Raises:
        RuntimeError: wrong shape or dtype.
    """
    weights, certificate, status = _nash(gram)
    return weights, certificate, status
