"""The weighted sum of the per-task gradients, as new tensors or in place."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ext.ops.checks import (
    check_not_empty,
    check_out,
    check_out_not_empty,
    check_task_grads,
    check_weights,
    new_output,
)
from mtl_ext.ops.registry import define_operator


def combine_reference(grads: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """Sums in task order, in float32 for half types; tasks of weight 0 are not read."""
    num_tasks = check_weights("combine", weights, grads)
    num_params = check_task_grads("combine", grads, num_tasks)
    out = [new_output(grads[param::num_params]) for param in range(num_params)]
    for param, target in enumerate(out):
        target.copy_(_weighted_sum(grads[param::num_params], _row(weights, param), target))
    return out


def _row(weights: Tensor, param: int) -> Tensor:
    """The weights [K] of one parameter."""
    return weights if weights.dim() == 1 else weights[param]


def _weighted_sum(column: Sequence[Tensor], weights: Tensor, out: Tensor) -> Tensor:
    """The sum over the tasks of one parameter, not yet rounded to the gradients' dtype."""
    wide = torch.float64 if out.dtype == torch.float64 else torch.float32
    total = torch.zeros_like(out, dtype=wide)
    for weight, grad in zip(weights, column, strict=True):
        if weight != 0 and grad.numel() > 0:
            total += weight.to(wide) * grad.to(wide)
    return total


def combine_fake(grads: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """Result shapes of combine."""
    num_params = check_task_grads("combine", grads, check_weights("combine", weights, grads))
    return [new_output(grads[param::num_params]) for param in range(num_params)]


def combine__reference(out: Sequence[Tensor], grads: Sequence[Tensor], weights: Tensor, accumulate: bool) -> None:
    """The same sums, rounded once after the addition to `out`."""
    combine__fake(out, grads, weights, accumulate)
    num_params = len(out)
    for param, target in enumerate(out):
        column = grads[param::num_params]
        if any(grad.numel() > 0 for grad in column):
            total = _weighted_sum(column, _row(weights, param), target)
            target.copy_(total + target if accumulate else total)


def combine__fake(out: Sequence[Tensor], grads: Sequence[Tensor], weights: Tensor, accumulate: bool) -> None:
    """combine_ returns nothing."""
    num_tasks = check_weights("combine_", weights, grads)
    check_task_grads("combine_", grads, num_tasks)
    check_out("combine_", out, grads, num_tasks)


def combine_setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Keeps gradients and weights."""
    grads, weights = inputs
    ctx.save_for_backward(weights, *grads)


def combine_backward(ctx: Any, cotangents: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """``d g_k = w_k C`` and ``d w_k = <C, g_k>`` for the cotangents C, the latter a row of a Gram matrix.

    With weights of its own, each parameter has a matrix of its own.
    """
    weights, *grads = ctx.saved_tensors
    num_tasks, num_params = weights.shape[-1], len(cotangents)
    factors = weights.expand(num_params, num_tasks).T.flatten()
    rows = [
        w.to(g.dtype) * cotangents[index % num_params] if g.numel() else torch.zeros_like(g)
        for index, (w, g) in enumerate(zip(factors, grads, strict=True))
    ]
    groups = None if weights.dim() == 1 else list(range(num_params))
    products = torch.ops.mtl_ext.gram([*cotangents, *grads], num_tasks + 1, groups)
    return rows, products[..., 0, 1:]


_combine = define_operator(
    "combine",
    "(Tensor[] grads, Tensor weights) -> Tensor[]",
    combine_reference,
    combine_fake,
    combine_setup_context,
    combine_backward,
)
_combine_ = define_operator(
    "combine_",
    "(Tensor(a!)[] out, Tensor[] grads, Tensor weights, bool accumulate) -> ()",
    combine__reference,
    combine__fake,
)


def combine(grads: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
    """The combined gradient ``sum_k weights[k] * grads[k * P + p]`` as P new tensors.

    With a row of weights per parameter, ``sum_k weights[p, k] * grads[k * P + p]``: of weights [G, K] of groups of
    parameters, ``weights[groups]`` are those rows.

    Args:
        grads: K * P strided tensors, task-major, as for :func:`mtl_ext.ops.gram`; an empty tensor is an
            absent gradient.
        weights: [K] or [P, K], float64, on the gradients' device. Where a task's weight is exactly 0, its gradient is
            not read, so that a non-finite one can be left out.

    Returns:
        P tensors of the parameters' shapes and dtypes, in the layout of the gradients where the tasks agree, else
        contiguous. Empty where every task is absent. Differentiable in both arguments, also twice. Sums run in task
        order, in float32 (float64 for float64).

    Raises:
        RuntimeError: as :func:`mtl_ext.ops.gram`, or ``weights`` has another shape, dtype or device.
    """
    check_not_empty("combine", grads)
    result: list[Tensor] = _combine(list(grads), weights)
    return result


@torch.no_grad()
def combine_(out: Sequence[Tensor], grads: Sequence[Tensor], weights: Tensor, *, accumulate: bool = False) -> None:
    """Writes the combined gradient over existing tensors, or adds it to them.

    Args:
        out: P dense tensors of the gradients' shapes and dtypes. May be the first task's own gradients
            (``grads[:P]``), whose memory is then reused; other overlaps are not allowed. Where every task is absent,
            ``out[p]`` is left as it is.
        grads: K * P strided tensors, task-major, as for :func:`combine`.
        weights: [K] or [P, K], float64, on the gradients' device, as for :func:`combine`.
        accumulate: add to ``out`` (as ``.grad`` accumulates) instead of overwriting it.

    Raises:
        RuntimeError: as :func:`combine`, or a tensor of ``out`` differs from its gradients in shape, dtype or device,
            or is not dense.
    """
    check_not_empty("combine_", grads)
    check_out_not_empty("combine_", out, grads, weights.shape[-1] if weights.dim() else 1)
    _combine_(list(out), list(grads), weights, accumulate)
