"""Feature disentanglement: how evenly the tasks share each position of a gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_not_empty, check_task_grads, new_output
from mtl_ext.ops.registry import define_operator


def saliency_entropy_reference(grads: Sequence[Tensor], num_tasks: int) -> tuple[Tensor, Tensor]:
    """Sums of the positions' entropies in float64."""
    num_params = check_task_grads("saliency_entropy", grads, num_tasks)
    total = torch.zeros((), dtype=torch.float64, device=grads[0].device)
    zero_columns = torch.zeros((), dtype=torch.int64, device=grads[0].device)
    positions = 0
    for param in range(num_params):
        present = _magnitudes(grads[param::num_params])
        if present:
            total += _entropy(present).sum()
            zero_columns += (torch.stack(present).amax(0) == 0).sum()
            positions += present[0].numel()
    return total / positions if positions else total * torch.nan, zero_columns


def _magnitudes(column: Sequence[Tensor]) -> list[Tensor]:
    return [grad.double().abs() for grad in column if grad.numel() > 0]


def _entropy(magnitudes: Sequence[Tensor]) -> Tensor:
    """Per position, in float64; the scale keeps the sum finite."""
    stacked = torch.stack(list(magnitudes))
    stacked = stacked * torch.where(stacked.amax(0) > 2.0**960, 2.0**-64, 1.0)
    total = stacked.sum(0)
    share = stacked / torch.where(total == 0, 1.0, total)
    entropy: Tensor = -torch.special.xlogy(share, share).sum(0)
    return entropy


def saliency_entropy_fake(grads: Sequence[Tensor], num_tasks: int) -> tuple[Tensor, Tensor]:
    """Result shapes of saliency_entropy."""
    check_task_grads("saliency_entropy", grads, num_tasks)
    return grads[0].new_empty((), dtype=torch.float64), grads[0].new_empty((), dtype=torch.int64)


def saliency_entropy_map_reference(grads: Sequence[Tensor], num_tasks: int) -> list[Tensor]:
    """The same per position, rounded once."""
    out = saliency_entropy_map_fake(grads, num_tasks)
    for param, target in enumerate(out):
        present = _magnitudes(grads[param :: len(out)])
        if present:
            target.copy_(_entropy(present))
    return out


def saliency_entropy_map_fake(grads: Sequence[Tensor], num_tasks: int) -> list[Tensor]:
    """Result shapes of saliency_entropy_map."""
    num_params = check_task_grads("saliency_entropy_map", grads, num_tasks)
    likes = [new_output(grads[param::num_params]) for param in range(num_params)]
    return [torch.empty_like(like, dtype=torch.promote_types(like.dtype, torch.float32)) for like in likes]


_saliency_entropy = define_operator(
    "saliency_entropy",
    "(Tensor[] grads, int num_tasks) -> (Tensor entropy, Tensor zero_columns)",
    saliency_entropy_reference,
    saliency_entropy_fake,
)
_saliency_entropy_map = define_operator(
    "saliency_entropy_map",
    "(Tensor[] grads, int num_tasks) -> Tensor[]",
    saliency_entropy_map_reference,
    saliency_entropy_map_fake,
)


@torch.no_grad()
def saliency_entropy(grads: Sequence[Tensor], num_tasks: int) -> tuple[Tensor, Tensor]:
    """Mean entropy of the tasks' shares ``p_kj = |g_kj| / sum_k' |g_k'j|`` over all positions j; low: disentangled.

    ``E_j = -sum_k p_kj log p_kj``, between 0 (one task alone has a gradient there) and log K (all have the same
    magnitude), whatever the scale of the gradients: subnormal and huge values are as good as others.

    Args:
        grads: K * P strided tensors, task-major, as for :func:`mtl_ext.ops.gram`; an empty tensor is an absent
            gradient and counts as zero. Usually the gradients with respect to the shared features.
        num_tasks: K, at least 1 (at most 2,048 on CUDA).

    Returns:
        ``(entropy, zero_columns)``, on the gradients' device: float64 [], in nats, NaN if there is no position, and
        int64 [], the number of positions where all gradients are zero, which count as entropy 0 in the mean. E_j is
        computed in float32 (float64 for float64) to (K + 4) roundings of log K, the mean in float64. NaN and Inf in a
        gradient make NaN. The same bits for every run and every number of threads on one machine.

    Raises:
        RuntimeError: as :func:`mtl_ext.ops.gram`.

    Note:
        One pass over memory, nothing of the gradients' size is allocated.
    """
    check_not_empty("saliency_entropy", grads)
    result: tuple[Tensor, Tensor] = _saliency_entropy(list(grads), num_tasks)
    return result


@torch.no_grad()
def saliency_entropy_map(grads: Sequence[Tensor], num_tasks: int) -> list[Tensor]:
    """The entropy of every position, whose mean :func:`saliency_entropy` returns.

    Args:
        grads: K * P strided tensors, task-major, as for :func:`saliency_entropy`.
        num_tasks: K.

    Returns:
        P tensors of the parameters' shapes, float32 (float64 for float64), in the layout of the gradients where the
        tasks agree, else contiguous; empty where every task is absent.

    Raises:
        RuntimeError: as :func:`mtl_ext.ops.gram`.
    """
    check_not_empty("saliency_entropy_map", grads)
    result: list[Tensor] = _saliency_entropy_map(list(grads), num_tasks)
    return result
