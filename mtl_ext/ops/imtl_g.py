"""The combination of the gradients with equal projections on all of them."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.kxk import SOLVED, solve_each, solved_problem, solver_fake, solver_setup_context
from mtl_ext.ops.registry import define_operator

NO_SOLUTION = 1


def imtl_g_reference(gram: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """By eigen-decomposition, problem by problem."""
    return solve_each("imtl_g", gram, lambda problem: _equal_projections(problem, eps))


def _equal_projections(gram: Tensor, eps: float) -> tuple[Tensor, Tensor, int]:
    """Weights [K], certificate and status of one problem [K, K] without zero gradients."""
    scaled = gram / gram.trace()
    lengths = scaled.diagonal().sqrt()
    tolerance = len(gram) * max(eps, torch.finfo(gram.dtype).eps)
    values, vectors = torch.linalg.eigh(scaled)
    kept = values > tolerance * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    solution = vectors @ (vectors.T @ lengths / values)
    residual = vectors.T @ (scaled @ solution - lengths)
    certificate = residual.norm() / (values[-1] * solution.norm() + 1)  # the lengths have norm 1
    total = solution.sum()
    if total.abs() <= tolerance * solution.abs().sum():
        return torch.zeros_like(solution), certificate, NO_SOLUTION
    return solution / total, certificate, SOLVED


def imtl_g_fake(gram: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of imtl_g."""
    return solver_fake("imtl_g", gram)


def imtl_g_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor, None]:
    """Through ``v = f(A) s`` with ``A = G / tr G``, ``s = sqrt(diag A)`` and f the inverse on the kept eigenvalues.

    The derivative of f(A) has the divided differences of f in the eigenvectors' basis (Daleckii & Krein 1965); for
    eigenvalues 0 that is the derivative of the pseudoinverse at constant rank (Golub & Pereyra 1973).
    """
    gram, weights, cotangent = solved_problem(ctx, cotangent)
    (eps,) = ctx.options
    info = torch.finfo(gram.dtype)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(info.tiny)[..., None]
    lengths = (gram.diagonal(dim1=-2, dim2=-1) / trace).clamp_min(0.0).sqrt()
    present = lengths > 0
    values, vectors = torch.linalg.eigh(gram / trace[..., None])
    kept = values > present.sum(-1, keepdim=True) * max(eps, info.eps) * values[..., -1:]
    inverse = torch.where(kept, 1 / values, 0.0)
    apply = vectors * inverse[..., None, :] @ vectors.mT
    total = (apply @ lengths[..., None]).sum(-2)
    # The cotangent of v; its sum's share cancels.
    outer = torch.where(present, cotangent - (cotangent * weights).sum(-1, keepdim=True), 0.0)
    outer = torch.where(total != 0, outer / total, 0.0)
    across = kept[..., :, None] & ~kept[..., None, :]
    gaps = (values[..., :, None] - values[..., None, :]).where(across, 1.0)
    across_slopes = torch.where(across, inverse[..., :, None] / gaps, 0.0)
    slopes = across_slopes + across_slopes.mT - inverse[..., :, None] * inverse[..., None, :]
    product = outer[..., :, None] * lengths[..., None, :]
    inner = vectors.mT @ ((product + product.mT) / 2) @ vectors
    diagonal = torch.where(present, (apply @ outer[..., None])[..., 0] / (2 * lengths), 0.0)
    return (vectors @ (slopes * inner) @ vectors.mT + torch.diag_embed(diagonal)) / trace[..., None], None


_imtl_g = define_operator(
    "imtl_g",
    "(Tensor gram, float eps) -> (Tensor, Tensor, Tensor)",
    imtl_g_reference,
    imtl_g_fake,
    solver_setup_context,
    imtl_g_backward,
)


def imtl_g(gram: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the combination with equal projections on all gradients' directions (IMTL-G, Liu et al. 2021).

    ``w = v / sum(v)`` with ``v = pinv(G) sqrt(diag G)``: for linearly independent gradients the paper's solution,
    ``g_i^T r / ||g_i||`` the same for all i with ``r = sum_k w_k g_k``; for dependent ones, which have none unless they
    are parallel, the least-squares one (as TorchJD). Weights may be negative.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch. The
            scale does not matter (the problem is divided by its trace), but gradients some ``sqrt(K eps)`` shorter than
            others fall below the cut.
        eps: machine epsilon of the gradients' dtype (at least that of float64 is used): eigenvalues up to
            ``K eps lambda_max`` count as 0, K without the tasks that have a zero gradient.

    Returns:
        weights [..., K] float64, summing to 1. A task with a zero gradient is left out (weight 0); all weights are 0
        where every gradient is zero.
        certificate [...] float64: the backward error of v, ``|P (G v - s)| / (lambda_max |v| + |s|)`` with
        ``s = sqrt(diag G)`` and P the projection onto the eigenvectors that are kept: v is exact for a matrix that
        differs from G by this much, relative to its norm.
        status [...] int32: 0 solved; 1 no weights exist, because ``|sum(v)| <= K eps sum(|v|)`` (weights 0; for example
        opposite gradients of equal length); 2 non-finite input (weights 0, certificate infinite).
        The weights are differentiable in a symmetric ``gram`` where the rank stays the same.

    Raises:
        RuntimeError: wrong shape or dtype.
    """
    weights, certificate, status = _imtl_g(gram, eps)
    return weights, certificate, status
