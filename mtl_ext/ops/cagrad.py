"""Conflict-averse gradient descent: the weights of its combined gradient."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_cagrad, check_gram
from mtl_ext.ops.kxk import (
    PARETO_STATIONARY,
    SOLVED,
    solve_each,
    solved_problem,
    solver_fake,
    solver_setup_context,
    symmetric_product,
)
from mtl_ext.ops.registry import define_operator
from mtl_ext.ops.simplex import affine_direction, simplex_minimum

# Where |g_w| is below this part of the gradients' root mean square length, G's own rounding moves the answer by more.
SHORT_LENGTH = 1e-3


def cagrad_reference(gram: Tensor, c: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """One unknown, |g_w|, by safeguarded Newton steps over quadratic problems on the simplex, problem by problem."""
    check_gram("cagrad", gram, batched=True)
    check_cagrad("cagrad", c, eps)
    return solve_each("cagrad", gram, lambda problem: _conflict_averse(problem, c, eps, gram.shape[-1]))


def _conflict_averse(gram: Tensor, c: float, eps: float, num_tasks: int) -> tuple[Tensor, Tensor, int]:
    """Weights, certificate and status of one problem [k, k], whose mean gradient counts K - k zero ones too."""
    num_present = len(gram)
    matrix = gram * (num_present / gram.trace())
    q = matrix.sum(0) / num_tasks
    mean_length = (q.sum() / num_tasks).clamp_min(0.0).sqrt()
    zero_length = (num_tasks * eps * num_present) ** 0.5
    equal = torch.ones_like(q)
    if c == 0:
        return equal / num_tasks, torch.zeros_like(mean_length), SOLVED
    if mean_length <= zero_length:
        return equal / num_present, (mean_length * num_tasks / num_present) ** 2 / num_present, PARETO_STATIONARY
    radius = c * mean_length
    w, length = _balance(matrix, q, radius, zero_length)
    if length <= zero_length:
        return w, length.square() / num_present, PARETO_STATIONARY
    slope = q + radius / length * (matrix @ w)
    gap = (w @ slope - slope.min()).clamp_min(0.0) / ((1 + c) * mean_length)
    return 1 / num_tasks + radius / length * w, gap * (length / SHORT_LENGTH).square().clamp_max(1.0), SOLVED


def _balance(matrix: Tensor, q: Tensor, radius: Tensor, zero_length: float) -> tuple[Tensor, Tensor]:
    """The w(tau) with ``|g_w(tau)| = radius * tau``, and that length; at most `zero_length` where there is none above.

    w(tau) minimises ``½ |g_w|^2 + tau g_w^T g_0``. ``|g_w(tau)| / tau`` falls with tau, and on one support
    ``|g_w(tau)|^2 = alpha + eta tau^2``.
    """
    w = torch.zeros_like(q)
    w[matrix.diagonal().argmin()] = 1.0
    tau = zero_length / radius
    low, high = torch.zeros_like(tau), torch.full_like(tau, torch.inf)
    for count in range(100):
        w = simplex_minimum(matrix, tau * q, w)
        length = (w @ matrix @ w).clamp_min(0.0).sqrt()
        if length > radius * tau:
            low = tau
        elif count == 0:
            break
        else:
            high = tau
        support = w > 0
        eta = -q[support] @ affine_direction(matrix[support][:, support], q[support])
        alpha = (length.square() - eta * tau.square()).clamp_min(0.0)
        following = (alpha / (radius.square() - eta)).sqrt() if radius.square() > eta else high
        if (following - tau).abs() <= 1e-15 * tau or high - low <= 1e-15 * low:
            break
        if not low < following < high:
            following = 16 * low if high == torch.inf else high / 16 if low < high / 16 else (low + high) / 2
        tau = following
    return w, length


def cagrad_fake(gram: Tensor, c: float, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of cagrad."""
    check_cagrad("cagrad", c, eps)
    return solver_fake("cagrad", gram)


def cagrad_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
    """Implicit differentiation of the conditions on ``v = weights - 1/K``, which is positive on the support S.

    They are ``(G weights)_S = mu 1`` for some mu and ``v^T G v = (c/K)^2 1^T G 1``.
    """
    gram, weights, cotangent = solved_problem(ctx, cotangent)
    c, num_tasks = ctx.options[0], gram.shape[-1]
    present = (gram.diagonal(dim1=-2, dim2=-1) > 0).to(gram.dtype)
    trace = (gram.diagonal(dim1=-2, dim2=-1) * present).sum(-1).clamp_min(torch.finfo(gram.dtype).tiny)[..., None]
    scaled = gram / trace[..., None]
    v = (weights - 1 / num_tasks) * present
    support = (v > 0).to(gram.dtype)
    system = scaled * support[..., :, None] * support[..., None, :] + torch.diag_embed(1 - support)
    column = ((scaled @ v[..., None])[..., 0] * support)[..., None]
    corner = (support.sum(-1, keepdim=True) == 0).to(gram.dtype)
    border = torch.cat([support, corner], -1)[..., None, :]
    system = torch.cat([torch.cat([system, column], -1), border], -2)
    right = torch.cat([cotangent * support, torch.zeros_like(corner)], -1)
    multipliers = torch.linalg.solve_ex(system, right[..., None])[0][..., 0] / trace
    on_level, on_radius = multipliers[..., :-1], multipliers[..., -1:]
    mean = present / num_tasks
    level = symmetric_product(on_level, v + mean)
    ball = symmetric_product(v, v) - c**2 * symmetric_product(mean, mean)
    return -level - on_radius[..., None] / 2 * ball, None, None


_cagrad = define_operator(
    "cagrad",
    "(Tensor gram, float c, float eps) -> (Tensor, Tensor, Tensor)",
    cagrad_reference,
    cagrad_fake,
    solver_setup_context,
    cagrad_backward,
)


def cagrad(gram: Tensor, c: float = 0.4, eps: float = torch.finfo(torch.float64).eps) -> tuple[Tensor, Tensor, Tensor]:
    """Task weights of CAGrad's gradient before rescaling (Liu et al. 2021, Algorithm 1).

    ``d = g_0 + (sqrt(phi) / |g_w|) g_w`` with ``sqrt(phi) = c |g_0|``, g_0 the mean gradient and w on the simplex the
    minimiser of ``F(w) = g_w^T g_0 + sqrt(phi) |g_w|`` (Eq. 4), so the weights of d are
    ``1/K + (sqrt(phi) / |g_w|) w``. It maximises the smallest of ``g_k^T d`` in the ball of radius sqrt(phi) around
    g_0. Exact up to rounding; the official code runs SLSQP or 20 steps of SGD, peers take a conic solver and absolute
    cut-offs of 1e-4 or 1e-8.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch. The
            scale does not matter.
        c: radius of the ball, at least 0 (0: the mean gradient; from 1 on, a common descent direction wherever there is
            one).
        eps: machine epsilon of the gradients' dtype: ``|g_w|^2 <= K eps tr G`` counts as zero.

    Returns:
        weights [..., K] float64. The mean counts every task, but one with a zero gradient has weight 0; all weights are
        0 where every gradient is zero.
        certificate [...] float64: for status 0 the duality gap ``F(w) - min_k g_k^T d``, so that no direction of the
        ball is better by more, relative to ``(1 + c) |g_0| L`` with L the root mean square of the lengths of the
        gradients that are not zero (to ``(1e-3 L / |g_w|)^2`` times that where |g_w| is below 1e-3 L). For status 1
        ``w^T G w / tr G``.
        status [...] int32: 0 solved; 1 Pareto-stationary: ``|g_w|`` or ``|g_0|`` counts as zero, there is no such d,
        and the weights are the w on the simplex that shows it; 2 non-finite input (weights 0, certificate infinite).
        The weights of status 0 are differentiable in a symmetric ``gram`` where the support of w stays the same.

    Raises:
        RuntimeError: wrong shape or dtype, negative or infinite ``c``, or ``eps`` not above 0.
    """
    weights, certificate, status = _cagrad(gram, c, eps)
    return weights, certificate, status
