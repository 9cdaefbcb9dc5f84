"""Inner products of the per-task gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_groups, check_not_empty, check_task_grads
from mtl_ext.ops.combine import combine
from mtl_ext.ops.registry import define_operator


def gram_reference(grads: Sequence[Tensor], num_tasks: int, groups: Sequence[int] | None) -> Tensor:
    """Float64 matrix products, parameter by parameter, the upper triangle mirrored to the lower one."""
    total = gram_fake(grads, num_tasks, groups).zero_()
    num_params = len(grads) // num_tasks
    for param in range(num_params):
        present = [k for k in range(num_tasks) if grads[k * num_params + param].numel() > 0]
        if present:
            rows = torch.stack([grads[k * num_params + param].reshape(-1).double() for k in present])
            index = torch.tensor(present, device=total.device)
            matrix = total if groups is None else total[groups[param]]
            matrix[index[:, None], index] += rows @ rows.T
    upper = total.triu()
    return upper + upper.triu(1).mT


def gram_fake(grads: Sequence[Tensor], num_tasks: int, groups: Sequence[int] | None) -> Tensor:
    """Result shape of gram."""
    num_params = check_task_grads("gram", grads, num_tasks)
    batch = () if groups is None else (check_groups("gram", groups, num_params),)
    return grads[0].new_empty((*batch, num_tasks, num_tasks), dtype=torch.float64)


def gram_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps the gradients."""
    grads, ctx.num_tasks, ctx.groups = inputs
    ctx.save_for_backward(*grads)


def gram_backward(ctx: Any, cotangent: Tensor) -> tuple[list[Tensor], None, None]:
    """``d g_k = sum_j (C + C^T)_kj g_j`` for the cotangent C (of each parameter's group)."""
    grads = list(ctx.saved_tensors)
    num_params = len(grads) // ctx.num_tasks
    symmetric = cotangent + cotangent.mT
    if ctx.groups is not None:
        symmetric = symmetric[torch.tensor(ctx.groups, device=cotangent.device)]
    rows = [combine(grads, symmetric[..., k, :]) for k in range(ctx.num_tasks)]
    combined = [row[param] for row in rows for param in range(num_params)]
    return [c if g.numel() else torch.zeros_like(g) for c, g in zip(combined, grads, strict=True)], None, None


_gram = define_operator(
    "gram",
    "(Tensor[] grads, int num_tasks, int[]? groups) -> Tensor",
    gram_reference,
    gram_fake,
    gram_setup_context,
    gram_backward,
)


def gram(grads: Sequence[Tensor], num_tasks: int, groups: Sequence[int] | None = None) -> Tensor:
    """Inner products of the per-task gradients, without stacking them.

    Args:
        grads: K * P strided tensors, task-major: ``grads[k * P + p]`` is d losses[k] / d params[p]. One device;
            float64, float32, bfloat16 or float16; tensors of equal p have equal shape and dtype. An empty tensor is
            an absent gradient and counts as zero.
        num_tasks: K, at least 1.
        groups: P numbers from 0 to P - 1, the group of each parameter: one matrix for each layer or tensor instead of
            one for all. A number that no parameter has is a group without columns, whose matrix is zero.

    Returns:
        Tensor [K, K], float64, on the gradients' device; with ``groups`` [G, K, K], G being one more than the largest
        of them. The matrices of all groups add up to that of the whole, but for rounding. Products are float32 (float64
        for float64 input), summed in float32 over at most 4,096 columns and in float64 across them. Symmetric bit for
        bit; the same bits for every run and every number of threads on one machine.

    Raises:
        RuntimeError: the length is not a positive multiple of ``num_tasks``; a device, dtype, layout or shape differs
            from its parameter's first present tensor or is not supported; the length or an entry of ``groups`` is
            wrong.

    Note:
        Reads each gradient once, whatever the number of groups. Dense tensors are walked in memory order; tensors whose
        strides differ between tasks are gathered. NaN and Inf come through as NaN and Inf. Differentiable, also twice.
    """
    check_not_empty("gram", grads)
    result: Tensor = _gram(list(grads), num_tasks, groups)
    return result
