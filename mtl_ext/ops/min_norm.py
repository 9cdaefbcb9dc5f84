"""The point of minimum norm in the convex hull of the gradients."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.kxk import SOLVED, solve_each, solved_problem, solver_fake, solver_setup_context, symmetric_product
from mtl_ext.ops.registry import define_operator
from mtl_ext.ops.simplex import simplex_minimum

# The certificate is the duality gap relative to the squared minimum norm, or to this part of the trace where the
# minimum norm is (nearly) zero.
CERTIFICATE_FLOOR = 1e-6


def min_norm_reference(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An active-set method, problem by problem."""
    return solve_each("min_norm", gram, minimum_norm)


def minimum_norm(gram: Tensor) -> tuple[Tensor, Tensor, int]:
    """Weights [K], certificate and status of one problem [K, K] without zero gradients."""
    num_tasks = len(gram)
    matrix = gram * (num_tasks / gram.trace())
    start = torch.zeros_like(gram[0])
    start[matrix.diagonal().argmin()] = 1.0
    weights = simplex_minimum(matrix, torch.zeros_like(start), start)
    products = matrix @ weights
    value = weights @ products
    gap = (value - products.min()).clamp_min(0.0)
    return weights, gap / value.clamp_min(CERTIFICATE_FLOOR * num_tasks), SOLVED


def min_norm_fake(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of min_norm."""
    return solver_fake("min_norm", gram)


def min_norm_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> Tensor:
    """Implicit differentiation on the support S: ``G_SS w_S = mu 1``, ``1^T w_S = 1``.

    Where the weights are not unique (dependent gradients in S), of their derivatives the smallest.
    """
    gram, weights, cotangent = solved_problem(ctx, cotangent)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(torch.finfo(gram.dtype).tiny)[..., None]
    support = (weights > 0).to(gram.dtype)
    inside = support[..., :, None] * support[..., None, :]
    system = inside * gram / trace[..., None] + torch.diag_embed(1 - support)
    border = torch.cat([support, torch.zeros_like(trace)], -1)
    system = torch.cat([torch.cat([system, support[..., None]], -1), border[..., None, :]], -2)
    right = torch.cat([cotangent * support, torch.zeros_like(trace)], -1)
    multipliers = (torch.linalg.pinv(system, hermitian=True) @ right[..., None])[..., :-1, 0]
    return symmetric_product(-multipliers / trace, weights)


_min_norm = define_operator(
    "min_norm",
    "(Tensor gram) -> (Tensor, Tensor, Tensor)",
    min_norm_reference,
    min_norm_fake,
    solver_setup_context,
    min_norm_backward,
)


def min_norm(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights on the simplex whose combined gradient is shortest: ``argmin_w w^T G w`` (MGDA, Désidéri 2012).

    Exact up to rounding by an active-set method (as Wolfe 1976), not an iteration that is stopped early.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch. The
            scale does not matter (the problem is divided by its trace).

    Returns:
        weights [..., K] float64, at least 0, summing to 1. A task with a zero gradient is left out (weight 0); all
        weights are 0 where every gradient is zero.
        certificate [...] float64: the duality gap ``w^T G w - min_k (G w)_k``, relative to ``w^T G w`` or to 1e-6 of
        the trace, whichever is larger. An upper bound on how far the answer is from the optimum.
        status [...] int32: 0 solved, 2 non-finite input (weights 0, certificate infinite).
        The weights are differentiable in a symmetric ``gram`` where the tasks of positive weight stay the same.

    Raises:
        RuntimeError: wrong shape or dtype.
    """
    weights, certificate, status = _min_norm(gram)
    return weights, certificate, status
