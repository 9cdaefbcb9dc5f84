"""Convex quadratic functions over the probability simplex: what the references of min_norm and cagrad share."""

import torch
from torch import Tensor

# On the diagonal of the system of a step: keeps it positive definite.
RIDGE = 1e-14
# Differences between gradients of this size, relative to the largest, are rounding.
ROUNDING = 4e-15


def simplex_minimum(matrix: Tensor, linear: Tensor, weights: Tensor) -> Tensor:
    """Minimises ``½ w^T A w + linear^T w`` over the simplex by an active-set method.

    Args:
        matrix: A [K, K], of mean diagonal 1.
        linear: [K].
        weights: [K], on the simplex: where to start.
    """
    support, left = weights > 0, torch.inf
    for _ in range(10 * len(matrix)):
        weights, support = _descend(matrix, linear, weights, support)
        products = matrix @ weights
        gradient = products + linear
        rounding = ROUNDING * float((products.abs() + linear.abs()).max())
        inside, outside = gradient[support], gradient.masked_fill(support, torch.inf)
        if outside.min() < inside.min() - rounding:
            support[outside.argmin()] = True
            left = torch.inf
            continue
        difference = float(inside.max() - inside.min())
        if difference <= rounding or difference > left / 2:
            break
        left = difference
    return weights


def _descend(matrix: Tensor, linear: Tensor, weights: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """To the minimum over the support's affine hull, without the tasks whose weights arrive at 0 on the way."""
    while True:
        step = torch.zeros_like(weights)
        gradient = (matrix @ weights + linear)[support]
        step[support] = affine_direction(matrix[support][:, support], gradient - gradient[0])
        distance = torch.where(step < 0, weights / -step, torch.inf)
        reach, blocking = distance.min(0)
        weights = (weights + reach.clamp_max(1.0) * step).clamp_min(0.0)
        support = support.clone()
        if reach > 1:
            return weights, support
        weights[blocking] = 0.0
        support[blocking] = False


def affine_direction(matrix: Tensor, linear: Tensor) -> Tensor:
    """The d [k] with ``1^T d = 0`` that minimises ``½ d^T A d + linear^T d``; a ridge keeps it unique."""
    ones, ridge = torch.ones_like(linear), RIDGE
    while True:
        factor, failed = torch.linalg.cholesky_ex(matrix + 1 + torch.diag(ridge * ones))
        if ridge >= 1 or (failed == 0 and factor.diagonal().min().square() >= ridge / 2):
            break
        ridge *= 16
    solutions = torch.cholesky_solve(torch.stack([linear, ones], 1), factor)
    return solutions[:, 0].sum() / solutions[:, 1].sum() * solutions[:, 1] - solutions[:, 0]
