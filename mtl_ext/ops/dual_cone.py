"""The shortest combination of the gradients whose weights lie on or above lower bounds."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_gram, check_lower
from mtl_ext.ops.kxk import NON_FINITE, SOLVED, symmetric_product
from mtl_ext.ops.registry import define_operator

# Of the diagonal, in units in which the gradients have length 1: makes the solution unique.
RIDGE = 1e-14
# Products of this size, relative to sum_k |v_k| |g_k|, are rounding.
ROUNDING = 1e-15
# The certificate is relative to the length of the combined gradient, or to this part of sum_k |v_k| |g_k|; that sum
# counts as this much of the largest bound at least.
LENGTH_FLOOR, TOTAL_FLOOR = 1e-5, 1e-12


def dual_cone_reference(gram: Tensor, lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An active-set method, problem by problem, without the tasks whose gradient is zero (their weight is 0)."""
    _check("dual_cone", gram, lower)
    num_bounds, num_tasks = lower.shape[-2:]
    batch = gram.shape[:-2].numel()
    weights = gram.new_zeros(batch, num_bounds, num_tasks)
    certificate = gram.new_zeros(batch, num_bounds)
    status = gram.new_full((batch, num_bounds), SOLVED, dtype=torch.int32)
    for b, problem in enumerate(gram.reshape(batch, num_tasks, num_tasks)):
        present = (problem.diagonal() > 0).nonzero().flatten()
        for m, bounds in enumerate(lower.reshape(batch, num_bounds, num_tasks)[b]):
            if not (problem.isfinite().all() and bounds.isfinite().all()):
                certificate[b, m], status[b, m] = torch.inf, NON_FINITE
            elif present.numel() > 0:
                solution, certificate[b, m] = _project(problem[present[:, None], present], bounds[present])
                weights[b, m, present] = solution
    shape = lower.shape[:-1]
    return weights.reshape(lower.shape), certificate.reshape(shape), status.reshape(shape)


def _project(gram: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [K] and certificate of one problem: frees the most violated task until none is left."""
    num_tasks = len(gram)
    lengths = gram.diagonal().sqrt()
    relative = lengths / lengths.max()
    largest = (lower * relative).abs().max()
    if largest == 0:
        return lower, largest
    unit = gram / lengths / lengths[:, None]
    unit.fill_diagonal_(1.0)
    bounds = lower * relative / largest
    identity = torch.eye(num_tasks, dtype=torch.float64, device=gram.device)
    u, ridge, free = bounds.clone(), RIDGE, torch.zeros(num_tasks, dtype=torch.bool, device=gram.device)
    for _ in range(10 * num_tasks):
        products = (unit @ u + ridge * u).masked_fill(free, 0.0)
        entering = products.argmin()
        if products[entering] >= -ROUNDING * u.abs().sum():
            break
        free[entering] = True
        while ridge < 1 and _smallest_pivot((unit + ridge * identity)[free][:, free]) < ridge / 2:
            ridge *= 16
        u, free = _descend(unit + ridge * identity, bounds, u, free)
    products = unit @ u
    violation = torch.where(u > bounds, products.abs(), -products).max().clamp_min(0.0)
    length = (u @ products).clamp_min(0.0).sqrt()
    weights = torch.where(u > bounds, torch.maximum(lower, u / relative * largest), lower)
    return weights, violation / torch.maximum(length, LENGTH_FLOOR * u.abs().sum().clamp_min(TOTAL_FLOOR))


def _smallest_pivot(matrix: Tensor) -> Tensor:
    """0 where the matrix is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return factor.diagonal().min().square() if failed == 0 else matrix.new_zeros(())


def _descend(matrix: Tensor, bounds: Tensor, u: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The minimum over the free tasks, those that arrive at their bounds put back; repeated until rounding is left."""
    left = torch.inf
    while free.any():
        step = torch.zeros_like(u)
        step[free] = -torch.linalg.solve(matrix[free][:, free], (matrix @ u)[free])
        distance = torch.where(step < 0, (u - bounds) / -step, torch.inf)
        reach, blocking = distance.min(0)
        u = torch.maximum(bounds, u + reach.clamp_max(1.0) * step)
        if reach <= 1:
            u[blocking], free = bounds[blocking], free.clone()
            free[blocking] = False
            continue
        before, left = left, float((matrix @ u)[free].abs().max())
        if left <= ROUNDING * max(float(u.abs().sum()), TOTAL_FLOOR) or left >= before / 2:
            break
    return u, free


def _check(op: str, gram: Tensor, lower: Tensor) -> None:
    check_gram(op, gram, batched=True)
    check_lower(op, lower, gram)


def dual_cone_fake(gram: Tensor, lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of dual_cone."""
    _check("dual_cone", gram, lower)
    batch = lower.shape[:-1]
    return gram.new_empty(lower.shape), gram.new_empty(batch), gram.new_empty(batch, dtype=torch.int32)


def dual_cone_setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keeps the problem and its answer."""
    gram, lower = inputs
    weights, certificate, status = output
    ctx.save_for_backward(gram, lower, weights, status)
    ctx.mark_non_differentiable(certificate, status)


def dual_cone_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    """Implicit differentiation: ``(G v)_F = 0`` for the tasks F above their bounds, the others keep to theirs.

    In units in which the gradients have length 1, with the ridge of the solver.
    """
    gram, lower, weights, status = ctx.saved_tensors
    solved = (status == SOLVED)[..., None]
    gram = gram.where(solved.any(-2)[..., None], 0.0)
    lengths = gram.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()
    inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
    counts = solved & (lengths > 0)[..., None, :]
    free = counts & (weights > lower)
    cotangent = cotangent.where(counts, 0.0)
    unit = (gram * inverse[..., :, None] * inverse[..., None, :])[..., None, :, :]
    system = unit * (free[..., :, None] & free[..., None, :]) + torch.diag_embed(torch.where(free, RIDGE, 1.0))
    right = torch.where(free, cotangent * inverse[..., None, :], 0.0)
    multipliers = torch.linalg.solve_ex(system, right[..., None])[0][..., 0] * inverse[..., None, :]
    gram_cotangent = symmetric_product(-multipliers, weights).sum(-3)
    return gram_cotangent, torch.where(free, 0.0, cotangent - multipliers @ gram)


_dual_cone = define_operator(
    "dual_cone",
    "(Tensor gram, Tensor lower) -> (Tensor, Tensor, Tensor)",
    dual_cone_reference,
    dual_cone_fake,
    dual_cone_setup_context,
    dual_cone_backward,
)


def dual_cone(gram: Tensor, lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the projection onto the dual cone: ``argmin_v v^T G v`` subject to ``v >= lower``.

    ``J^T v`` is the projection of ``J^T lower`` onto the gradients' dual cone ``{r: J r >= 0}``, which conflicts with
    none of them (Quinton & Rey 2024, Proposition 1). UPGrad sums the weights of the K problems ``lower = diag(p)``;
    DualProj is the one problem ``lower = p``. Exact up to rounding by an active-set method. Peers add 1e-4 to the
    diagonal of G / tr G (a caller can do that too) and give up below an absolute norm.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch. The
            scales of the matrix and of its tasks do not matter. What negative eigenvalues it has count as rounding.
        lower: [..., M, K], float64, the same leading dimensions, on the same device: M problems with one matrix.

    Returns:
        weights [..., M, K] float64, at least ``lower``. A task with a zero gradient is left out (weight 0). Where the
        solution is not unique (dependent gradients), ``J^T v`` still is.
        certificate [..., M] float64: how far ``r = J^T v`` is from the conditions of the optimum, ``g_k^T r >= 0``, and
        ``= 0`` where ``v_k > lower_k``: the largest ``|g_k^T r| / |g_k|`` that violates one, relative to ``|r|`` or to
        1e-5 of ``sum_k |v_k| |g_k|``, whichever is larger. So r is the exact projection onto the cone with each of its
        faces moved by at most that much, and no cosine between r and a gradient is below ``-certificate`` (unless five
        digits of r cancel).
        status [..., M] int32: 0 solved, 2 non-finite input (weights 0, certificate infinite).
        The weights are differentiable in a symmetric ``gram`` and in ``lower`` where the tasks on their bounds stay the
        same.

    Raises:
        RuntimeError: wrong shape, dtype or device.
    """
    weights, certificate, status = _dual_cone(gram, lower)
    return weights, certificate, status
