"""The Euclidean projection onto the probability simplex."""

from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import refuse
from mtl_ext.ops.kxk import NON_FINITE, SOLVED, solver_setup_context
from mtl_ext.ops.registry import define_operator


def project_simplex_reference(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By sorting (Held et al. 1974): the threshold is the mean excess over 1 of as many largest values as exceed it."""
    check_values(values)
    finite = values.isfinite().all(-1, keepdim=True)
    shifted = values.where(finite, 0.0)
    shifted = shifted - shifted.amax(-1, keepdim=True)
    ordered = shifted.sort(-1, descending=True).values
    counts = torch.arange(1, values.shape[-1] + 1, dtype=values.dtype, device=values.device)
    thresholds = (ordered.cumsum(-1) - 1) / counts
    last = (ordered > thresholds).sum(-1, keepdim=True) - 1
    weights = (shifted - thresholds.gather(-1, last)).clamp_min(0.0)
    residual = shifted - weights
    gap = residual.amax(-1) - (weights * residual.where(weights > 0, 0.0)).sum(-1)
    certificate = torch.maximum((weights.sum(-1) - 1).abs(), gap)
    finite = finite[..., 0]
    status = torch.full(finite.shape, NON_FINITE, dtype=torch.int32, device=values.device).masked_fill(finite, SOLVED)
    return weights.where(finite[..., None], 0.0), certificate.where(finite, torch.inf), status


def check_values(values: Tensor) -> None:
    """Checks the vectors that are projected."""
    if values.dim() < 1 or values.shape[-1] < 1:
        refuse("project_simplex", f"values has shape {list(values.shape)}, expected [..., K] with K at least 1")
    if values.dtype != torch.float64:
        refuse("project_simplex", f"values has dtype {values.dtype}, expected torch.float64")


def project_simplex_fake(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of project_simplex."""
    check_values(values)
    batch = values.shape[:-1]
    return values.new_empty(values.shape), values.new_empty(batch), values.new_empty(batch, dtype=torch.int32)


def project_simplex_backward(ctx: Any, cotangent: Tensor, *_: Tensor) -> Tensor:
    """The projection onto the face of the positive weights: their cotangents less the mean of them."""
    _, weights, _ = ctx.saved_tensors
    support = (weights > 0).to(weights.dtype)
    mean = (cotangent * support).sum(-1, keepdim=True) / support.sum(-1, keepdim=True).clamp_min(1.0)
    projected: Tensor = (cotangent - mean) * support
    return projected


_project_simplex = define_operator(
    "project_simplex",
    "(Tensor values) -> (Tensor, Tensor, Tensor)",
    project_simplex_reference,
    project_simplex_fake,
    solver_setup_context,
    project_simplex_backward,
)


def project_simplex(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest weights on the probability simplex: ``argmin_w ||w - values||`` (Michelot 1986), w >= 0, sum(w) = 1.

    Exact up to rounding for values of any size: only differences to the largest one count.

    Args:
        values: [..., K], float64; leading dimensions are a batch.

    Returns:
        weights [..., K] float64. Differentiable where the positive weights stay the same, also twice (the second
        derivative is 0).
        certificate [...] float64: ``|sum(w) - 1|`` or the gap ``max_k r_k - w^T r`` with ``r = values - w``, the larger
        of the two. The gap is 0 at the answer alone, and bounds half the squared distance to it.
        status [...] int32: 0 solved, 2 non-finite input (weights 0, certificate infinite).

    Raises:
        RuntimeError: wrong shape or dtype.
    """
    weights, certificate, status = _project_simplex(values)
    return weights, certificate, status
