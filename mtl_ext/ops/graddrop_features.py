"""Gradient sign dropout on features: the batch decides together which sign passes at a position."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_features, check_graddrop, check_not_empty, check_task_grads, new_output
from mtl_ext.ops.combine import combine_
from mtl_ext.ops.graddrop import (
    MASK_SCHEMA,
    factored_sum,
    norm_factor,
    squared_norm_of_sum,
    task_factors,
    uniform_draw,
    widened,
)
from mtl_ext.ops.registry import define_operator

BATCH_SLICES = 8


def graddrop_features_reference(
    grads: Sequence[Tensor],
    num_tasks: int,
    features: Sequence[Tensor],
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
) -> list[Tensor]:
    """Sums over the batch in eight slices, then over the tasks in order, in float32 for half types."""
    out = graddrop_features_fake(grads, num_tasks, features, seed, uniform, leak, sigmoid, kappa)
    for param, (target, feature) in enumerate(zip(out, features, strict=True)):
        if target.numel() == 0:
            continue
        values = widened(grads[param :: len(out)])
        marginals = {k: _batch_sum(_sign(feature).to(value.dtype) * value) for k, value in values.items()}
        factors = task_factors(marginals, uniform_draw(target[0], param, seed, uniform), leak, sigmoid, kappa)
        target.copy_(factored_sum(values, factors, target))
    return out


def _sign(feature: Tensor) -> Tensor:
    """-1, 0 or 1, and 0 for NaN."""
    return (feature > 0).to(torch.int8) - (feature < 0).to(torch.int8)


def _batch_sum(values: Tensor) -> Tensor:
    """Sum over dim 0: sample b goes to slice b mod 8, slices are added in order."""
    slices = values.new_zeros(BATCH_SLICES, *values.shape[1:])
    for begin in range(0, len(values), BATCH_SLICES):
        part = values[begin : begin + BATCH_SLICES]
        slices[: len(part)] += part
    total = torch.zeros_like(slices[0])
    for part in slices:
        total += part
    return total


def graddrop_features_fake(
    grads: Sequence[Tensor],
    num_tasks: int,
    features: Sequence[Tensor],
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
) -> list[Tensor]:
    """Result shapes of graddrop_features: the gradients' layout where it has the batch outermost, else contiguous."""
    num_params = check_task_grads("graddrop_features", grads, num_tasks)
    check_features("graddrop_features", features, grads, num_tasks)
    check_graddrop("graddrop_features", grads, num_tasks, seed, uniform, leak, per_sample=True)
    out = [new_output(grads[param::num_params]) for param in range(num_params)]
    return [
        tensor if tensor.numel() == 0 or len(tensor) == 1 or tensor.stride(0) == tensor[0].numel()
        else torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in out
    ]  # fmt: skip


_graddrop_features = define_operator(
    "graddrop_features",
    f"(Tensor[] grads, int num_tasks, Tensor[] features, {MASK_SCHEMA}) -> Tensor[]",
    graddrop_features_reference,
    graddrop_features_fake,
)


@torch.no_grad()
def graddrop_features(
    grads: Sequence[Tensor],
    num_tasks: int,
    features: Sequence[Tensor],
    *,
    seed: Tensor | None = None,
    uniform: Sequence[Tensor] = (),
    leak: Tensor | None = None,
    sigmoid: bool = False,
    kappa: float = 1.0,
    keep_grad_norm: bool = False,
) -> list[Tensor]:
    """GradDrop on features (Chen et al. 2020, as first proposed): one sign per position, decided by the whole batch.

    At each position j of a sample, with the marginal gradients ``m_k[j] = sum_b sign(z[b, j]) g_k[b, j]``, the purity
    ``p = (1 + sum_k m_k / sum_k |m_k|) / 2`` and one u uniform in [0, 1), task k passes where m_k is positive and
    ``f(p) > u`` or negative and ``f(p) < u``: ``M_k[j]`` in {0, 1}. The result is, for every sample,
    ``sum_k (l_k + (1 - l_k) M_k[j]) g_k[b, j]``. A task whose marginal gradient is 0 does not pass (lingvo lets it),
    nor is there an epsilon in the purity or in sign(z), where lingvo has 1e-7.

    Args:
        grads: K * P strided tensors [B, ...], task-major: ``grads[k * P + p]`` is d losses[k] / d features[p]; an empty
            tensor is an absent gradient and counts as zero.
        num_tasks: K, at least 1 (at most 64 on CUDA).
        features: P tensors [B, ...] z, shaped like their gradients, of the same dtype and device.
        seed: [2], int64, as for :func:`mtl_ext.ops.graddrop`; element i is counted within one sample, in the memory
            order of the result.
        uniform: instead of a seed, P float32 tensors of the shape of a sample, ``features[p].shape[1:]``.
        leak: [K], float64, in [0, 1]; None: zeros.
        sigmoid: f is ``sigmoid(4 kappa (p - 1/2))`` instead of ``kappa (p - 1/2) + 1/2``.
        kappa: steepness of f.
        keep_grad_norm: as for :func:`mtl_ext.ops.graddrop`.

    Returns:
        P tensors like their gradients, in the layout in which the tasks agree if it has the batch outermost, else
        contiguous; empty where every task is absent. Sums run in float32 (float64 for float64), over the batch in eight
        slices (sample b in slice b mod 8, slices in order), over the tasks in order; for the linear f the mask is the
        same bits on every device. A NaN or Inf shows in its own sample; at its position the others get only leaks.

    Raises:
        RuntimeError: as :func:`mtl_ext.ops.graddrop`; or a feature differs from its gradients in shape, dtype or
            device, or has no batch dimension.

    Note:
        Reads every gradient twice, the second time from the cache where the batch is not large. Gradients and features
        in other layouts are gathered.
    """
    check_not_empty("graddrop_features", grads)
    arguments = (list(features), seed, list(uniform), leak, sigmoid, kappa)
    result: list[Tensor] = _graddrop_features(list(grads), num_tasks, *arguments)
    if keep_grad_norm:
        combine_(result, result, norm_factor(result, squared_norm_of_sum(grads, num_tasks)))
    return result
