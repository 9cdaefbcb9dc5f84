"""Weights that make the gradients orthogonal and equally long."""

import functools
from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_gram, refuse
from mtl_ext.ops.kxk import NON_FINITE, SOLVED, solve_each, solver_fake
from mtl_ext.ops.registry import define_operator

SCALE_MODES = ("min", "median", "rmse")


def _check(gram: Tensor, preference: Tensor | None, scale_mode: str, eps: float) -> None:
    check_gram("aligned", gram, batched=True)
    if scale_mode not in SCALE_MODES:
        refuse("aligned", f"scale_mode is '{scale_mode}', expected 'min', 'median' or 'rmse'")
    if not 0 <= eps < 1:
        expected = "at least 0 and below 1 (the machine epsilon of the gradients)"
        refuse("aligned", f"eps is {eps:g}, expected {expected}")
    if preference is None:
        return
    shared, own = [gram.shape[-1]], list(gram.shape[:-1])
    if list(preference.shape) not in (shared, own):
        expected = f"[K] = {shared}" + (f" or [..., K] = {own}" if len(own) > 1 else "")
        refuse("aligned", f"preference has shape {list(preference.shape)}, expected {expected}")
    if preference.dtype != torch.float64:
        refuse("aligned", f"preference has dtype {preference.dtype}, expected torch.float64")
    if preference.device != gram.device:
        refuse("aligned", f"preference is on {preference.device}, expected {gram.device} as gram")


def aligned_reference(
    gram: Tensor, scale_mode: str, eps: float, preference: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula, problem by problem, on top of torch.linalg.eigh."""
    _check(gram, preference, scale_mode, eps)
    shape, num_tasks = gram.shape[:-1], gram.shape[-1]
    rows = gram.new_ones(shape) if preference is None else preference.expand(shape)
    weights, certificate, status = (result.clone() for result in solver_fake("aligned", gram))
    results = weights.view(-1, num_tasks), certificate.view(-1), status.view(-1)
    for index, (problem, row) in enumerate(
        zip(gram.reshape(-1, num_tasks, num_tasks), rows.reshape(-1, num_tasks), strict=True)
    ):
        present = row[problem.diagonal() > 0]
        solve = functools.partial(_balance, preference=present, scale_mode=scale_mode, eps=eps)
        solved = solve_each("aligned", problem, solve)
        for result, value in zip(results, solved, strict=True):
            result[index] = value
        if not row.isfinite().all():
            results[0][index], results[1][index], results[2][index] = 0.0, torch.inf, NON_FINITE
    return weights, certificate, status


def _balance(gram: Tensor, preference: Tensor, scale_mode: str, eps: float) -> tuple[Tensor, Tensor, int]:
    """``B p`` for one problem [K, K] without zero gradients."""
    scaled = (gram + gram.T) / 2 / gram.trace()
    values, vectors = torch.linalg.eigh(scaled)
    rebuilt, unit = vectors * values @ vectors.T, torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    certificate = (rebuilt - scaled).norm() / values[-1] + (vectors @ vectors.T - unit).norm()
    kept = values > values[-1] * len(gram) * eps
    values, vectors = values[kept], vectors[:, kept]
    sigma = values @ _shares(torch.ones_like(values), scale_mode)
    return vectors * (sigma / values).sqrt() @ (vectors.T @ preference), certificate, SOLVED


def _shares(kept: Tensor, scale_mode: str) -> Tensor:
    """How much of each ascending eigenvalue [..., K] is in sigma; `kept` is 1 for those that count, 0 before them."""
    count = kept.sum(-1, keepdim=True)
    if scale_mode == "rmse":
        return kept / count
    order = kept.cumsum(-1) - 1
    chosen = torch.zeros_like(count) if scale_mode == "min" else torch.floor((count - 1) / 2)
    return ((order == chosen) & (kept > 0)).to(kept.dtype)


def aligned_fake(
    gram: Tensor, scale_mode: str, eps: float, preference: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of aligned."""
    _check(gram, preference, scale_mode, eps)
    return solver_fake("aligned", gram)


def aligned_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keeps the problem and its answer; only the weights have a derivative."""
    gram, ctx.scale_mode, ctx.eps, preference = inputs
    weights, certificate, status = output
    ctx.save_for_backward(gram, preference, weights, status)
    ctx.mark_non_differentiable(certificate, status)


def aligned_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> tuple[Tensor, None, None, Tensor | None]:
    """Divided differences of ``f(l) = l^(-1/2)``, 0 where not kept, between the eigenvalues (Daleckii & Krein 1965).

    ``dB = sqrt(sigma) V (F * V^T dG V) V^T + B dsigma / (2 sigma)`` and ``dsigma`` is the diagonal of ``V^T dG V``
    weighed by each eigenvalue's share in sigma.
    """
    gram, preference, weights, status = ctx.saved_tensors
    squares = gram.diagonal(dim1=-2, dim2=-1)
    present = (squares > 0) & (status == SOLVED)[..., None]
    some = present.any(-1, keepdim=True)
    counts = present.to(gram.dtype)
    p = (torch.ones_like(weights) if preference is None else preference.expand(weights.shape)) * counts
    c = torch.where(present, cotangent, 0.0)
    trace = torch.where(present, squares, 0.0).sum(-1).where(some[..., 0], 1.0)[..., None, None]
    inside = present[..., :, None] & present[..., None, :]
    scaled = torch.where(inside, (gram + gram.mT) / 2 / trace, 0.0)
    scaled = scaled + torch.diag_embed((~some).to(gram.dtype).expand_as(counts))
    values, vectors = torch.linalg.eigh(scaled)
    kept = (values > values[..., -1:] * counts.sum(-1, keepdim=True) * ctx.eps).to(gram.dtype)
    shares = _shares(kept, ctx.scale_mode)
    sigma = (values * shares).sum(-1, keepdim=True)
    roots = torch.where(kept > 0, values, 1.0).sqrt()
    inverse = kept / roots
    left, right = (vectors.mT @ c[..., None])[..., 0], (vectors.mT @ p[..., None])[..., 0]
    product = left[..., :, None] * right[..., None, :]
    differences = _differences(values, roots, kept)
    along_sigma = (left * inverse * right).sum(-1, keepdim=True) / (2 * sigma)
    inner = differences * (product + product.mT) / 2 + torch.diag_embed(shares * along_sigma)
    gram_cotangent = sigma.sqrt()[..., None] * vectors @ inner @ vectors.mT / trace
    p_cotangent = None
    if preference is not None:
        balanced = (vectors @ (sigma.sqrt() * inverse * left)[..., None])[..., 0] * counts
        p_cotangent = balanced.sum_to_size(preference.shape)
    return torch.where(inside, gram_cotangent, 0.0), None, None, p_cotangent


def _differences(values: Tensor, roots: Tensor, kept: Tensor) -> Tensor:
    """Divided differences [..., K, K] of ``l^(-1/2)`` over kept, and 0 over other eigenvalues."""
    both = kept[..., :, None] * kept[..., None, :]
    a, b = roots[..., :, None], roots[..., None, :]
    one = (kept[..., :, None] - kept[..., None, :]).abs()
    gaps = values[..., :, None] - values[..., None, :]
    apart = (kept / roots)[..., :, None] - (kept / roots)[..., None, :]
    return -both / (a * b * (a + b)) + one * apart / torch.where(one > 0, gaps, 1.0)


_aligned = define_operator(
    "aligned",
    "(Tensor gram, str scale_mode, float eps, Tensor? preference=None) -> (Tensor, Tensor, Tensor)",
    aligned_reference,
    aligned_fake,
    aligned_setup_context,
    aligned_backward,
)


def aligned(
    gram: Tensor, scale_mode: str = "min", eps: float = torch.finfo(torch.float32).eps, preference: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``B p`` of balanced gradients (Aligned-MTL, Senushkin et al. 2023, Theorem 2).

    ``B = sqrt(sigma) V L^(-1/2) V^T`` over the eigenpairs of G with ``l > l_max K eps`` (K counting the tasks whose
    gradient is not zero): the gradients ``B J`` are orthogonal and of length ``sqrt(sigma)``, up to the rank of J. The
    authors' code has ``p = 1`` and ``scale_mode="min"``; TorchJD has the mean, ``p = 1 / K``.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch. The
            scale does not matter (the problem is divided by its trace).
        scale_mode: sigma is the smallest of the kept eigenvalues ("min"), their lower median ("median", as
            torch.median) or their mean ("rmse").
        eps: machine epsilon of the gradients' dtype (not of ``gram``): what counts as rank.
        preference: p, [K] for every problem or [..., K], float64, on the same device; None: ones.

    Returns:
        weights [..., K] float64; 0 for a task whose gradient is zero.
        certificate [...] float64: how exact the eigen-decomposition is, ``|G - V L V^T| / l_max + |V V^T - 1|`` in
        Frobenius norms. ``B G B / sigma`` is a projector up to the certificate times ``l_max`` over the smallest kept
        eigenvalue.
        status [...] int32: 0 solved, 2 non-finite input (weights 0, certificate infinite).
        The weights are differentiable in ``preference`` and in a symmetric ``gram`` where the rank stays the same and
        the eigenvalue that is sigma is single.

    Raises:
        RuntimeError: wrong shape, dtype, device, ``scale_mode`` or ``eps``.
    """
    weights, certificate, status = _aligned(gram, scale_mode, eps, preference)
    return weights, certificate, status
