"""Gradient sign dropout: per column, the gradients of one sign pass and the others leak."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import (
    check_graddrop,
    check_not_empty,
    check_out,
    check_out_not_empty,
    check_task_grads,
    first_present,
    new_output,
)
from mtl_ext.ops.combine import combine_
from mtl_ext.ops.gram import gram
from mtl_ext.ops.philox import philox_uniform
from mtl_ext.ops.registry import define_operator

MASK_SCHEMA = "Tensor? seed, Tensor[] uniform, Tensor? leak, bool sigmoid, float kappa"
SCHEMA_TAIL = f"Tensor[] grads, int num_tasks, {MASK_SCHEMA}"


def graddrop_reference(
    grads: Sequence[Tensor],
    num_tasks: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
) -> list[Tensor]:
    """Sums in task order, in float32 for half types; the mask without a division for the linear f."""
    num_params = check_task_grads("graddrop", grads, num_tasks)
    check_graddrop("graddrop", grads, num_tasks, seed, uniform, leak)
    out = [new_output(grads[param::num_params]) for param in range(num_params)]
    for param, target in enumerate(out):
        if target.numel() > 0:
            column = grads[param::num_params]
            target.copy_(_passed_sum(column, target, param, seed, uniform, leak, sigmoid, kappa))
    return out


def _passed_sum(
    column: Sequence[Tensor],
    out: Tensor,
    param: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
) -> Tensor:
    """The masked sum of one parameter's gradients, not yet rounded to their dtype."""
    values = widened(column)
    factors = task_factors(values, uniform_draw(out, param, seed, uniform), leak, sigmoid, kappa)
    return factored_sum(values, factors, out)


def widened(column: Sequence[Tensor]) -> dict[int, Tensor]:
    """Task -> its gradient in the dtype of the sums; absent ones are left out."""
    return {
        k: grad.to(torch.float64 if grad.dtype == torch.float64 else torch.float32)
        for k, grad in enumerate(column)
        if grad.numel() > 0
    }


def uniform_draw(out: Tensor, param: int, seed: Tensor | None, uniform: Sequence[Tensor]) -> Tensor:
    """The u of every element of a parameter's result, counted in the memory order of `out`; or the caller's."""
    if seed is None:
        return uniform[param]
    index = torch.arange(out.numel(), device=out.device).as_strided(out.shape, out.stride())
    return philox_uniform(seed, param, index)


def factored_sum(values: dict[int, Tensor], factors: dict[int, Tensor], out: Tensor) -> Tensor:
    """The sum of factor times gradient in task order, in the layout of `out`, not yet rounded to its dtype."""
    result = torch.zeros_like(out, dtype=next(iter(values.values())).dtype)
    for k, value in values.items():
        result += factors[k] * value
    return result


def task_factors(
    values: dict[int, Tensor], draw: Tensor, leak: Tensor | None, sigmoid: bool, kappa: float
) -> dict[int, Tensor]:
    """Task -> what its gradient is multiplied by: 1 where its value has the sign that passes, else its leak."""
    first = next(iter(values.values()))
    total, magnitude = torch.zeros_like(first), torch.zeros_like(first)
    for value in values.values():
        total += value
        magnitude += value.abs()
    threshold = 2 * draw.to(first.dtype) - 1
    steepness = first.new_tensor(kappa)
    score = torch.tanh(steepness * (total / magnitude)) if sigmoid else steepness * total
    bound = threshold if sigmoid else threshold * magnitude
    sign = (score > bound).to(first.dtype) - (score < bound).to(first.dtype)
    leaks = first.new_zeros(max(values) + 1) if leak is None else leak.to(first.dtype)
    return {k: torch.where(value * sign > 0, first.new_ones(()), leaks[k]) for k, value in values.items()}


def graddrop_fake(
    grads: Sequence[Tensor],
    num_tasks: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
) -> list[Tensor]:
    """Result shapes of graddrop."""
    num_params = check_task_grads("graddrop", grads, num_tasks)
    check_graddrop("graddrop", grads, num_tasks, seed, uniform, leak)
    return [new_output(grads[param::num_params]) for param in range(num_params)]


def graddrop__reference(
    out: Sequence[Tensor],
    grads: Sequence[Tensor],
    num_tasks: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
    accumulate: bool,
) -> None:
    """The same sums, rounded once after the addition to `out`."""
    graddrop__fake(out, grads, num_tasks, seed, uniform, leak, sigmoid, kappa, accumulate)
    num_params = len(grads) // num_tasks
    for param, target in enumerate(out):
        column = grads[param::num_params]
        if any(grad.numel() > 0 for grad in column):
            total = _passed_sum(column, target, param, seed, uniform, leak, sigmoid, kappa)
            target.copy_(total + target if accumulate else total)


def graddrop__fake(
    out: Sequence[Tensor],
    grads: Sequence[Tensor],
    num_tasks: int,
    seed: Tensor | None,
    uniform: Sequence[Tensor],
    leak: Tensor | None,
    sigmoid: bool,
    kappa: float,
    accumulate: bool,
) -> None:
    """graddrop_ returns nothing."""
    check_task_grads("graddrop_", grads, num_tasks)
    check_out("graddrop_", out, grads, num_tasks)
    check_graddrop("graddrop_", grads, num_tasks, seed, uniform, leak)


_graddrop = define_operator("graddrop", f"({SCHEMA_TAIL}) -> Tensor[]", graddrop_reference, graddrop_fake)
_graddrop_ = define_operator(
    "graddrop_",
    f"(Tensor(a!)[] out, {SCHEMA_TAIL}, bool accumulate) -> ()",
    graddrop__reference,
    graddrop__fake,
)


def norm_factor(result: Sequence[Tensor], squared_norm: Tensor) -> Tensor:
    """[1] float64: what brings `result` to a norm; 0 where it is zero."""
    found = gram(result, 1).flatten()
    return torch.where(found == 0, 0.0, (squared_norm / found).sqrt())


def squared_norm_of_sum(grads: Sequence[Tensor], num_tasks: int) -> Tensor:
    """``||sum_k g_k||^2``, a float64 scalar."""
    return gram(grads, num_tasks).sum().clamp(min=0)


@torch.no_grad()
def graddrop(
    grads: Sequence[Tensor],
    num_tasks: int,
    *,
    seed: Tensor | None = None,
    uniform: Sequence[Tensor] = (),
    leak: Tensor | None = None,
    sigmoid: bool = False,
    kappa: float = 1.0,
    keep_grad_norm: bool = False,
) -> list[Tensor]:
    """GradDrop (Chen et al. 2020): a random sign per element, by its purity, and the sum of the gradients that have it.

    With the purity ``p = (1 + sum_k g_k / sum_k |g_k|) / 2`` and u uniform in [0, 1), the positive gradients pass where
    ``f(p) > u``, the negative ones where ``f(p) < u``; the result is ``sum_k (l_k + (1 - l_k) M_k) g_k``, M_k telling
    whether g_k passes. Where all gradients are zero none passes.

    Args:
        grads: K * P strided tensors, task-major, as for :func:`mtl_ext.ops.gram`; an empty tensor is an absent
            gradient and counts as zero.
        num_tasks: K, at least 1 (at most 2,048 on CUDA).
        seed: [2], int64, on the gradients' device: seed and step. Element i of parameter p, counted in the memory order
            of the result (the logical order for contiguous tensors), draws word ``i mod 4`` of Philox4x32-10 with
            counter (i / 4 low, i / 4 high, p, step) and the seed as key; ``u = (word >> 8) * 2^-24``.
        uniform: instead of a seed, P float32 tensors of the parameters' shapes, the u of every element. Entries of
            parameters that are absent for all tasks are not read.
        leak: [K], float64, in [0, 1], on the gradients' device; None: zeros.
        sigmoid: f is ``sigmoid(4 kappa (p - 1/2))`` instead of ``kappa (p - 1/2) + 1/2``.
        kappa: steepness of f; 1 without ``sigmoid`` is the identity.
        keep_grad_norm: scale the result, all P tensors together, to the norm of the plain sum ``sum_k g_k``; a zero
            result stays zero. Costs another pass over the gradients (their Gram matrix) and two over the result, which
            is rounded twice. The authors' code multiplies by the inverse of this ratio; TorchJD and LibMTL do not
            scale.

    Returns:
        P tensors as from :func:`mtl_ext.ops.combine`. Sums run in task order, in float32 (float64 for float64). For the
        linear f the mask is the same bits on every device and instruction set. NaN and Inf do not stay hidden: an
        element that has one becomes NaN or Inf.

    Raises:
        RuntimeError: as :func:`mtl_ext.ops.gram`; both or neither of ``seed`` and ``uniform``; one of them or ``leak``
            has another shape, dtype or device.
    """
    check_not_empty("graddrop", grads)
    result: list[Tensor] = _graddrop(list(grads), num_tasks, seed, list(uniform), leak, sigmoid, kappa)
    if keep_grad_norm:
        combine_(result, result, norm_factor(result, squared_norm_of_sum(grads, num_tasks)))
    return result


@torch.no_grad()
def graddrop_(
    out: Sequence[Tensor],
    grads: Sequence[Tensor],
    num_tasks: int,
    *,
    seed: Tensor | None = None,
    uniform: Sequence[Tensor] = (),
    leak: Tensor | None = None,
    sigmoid: bool = False,
    kappa: float = 1.0,
    accumulate: bool = False,
    keep_grad_norm: bool = False,
) -> None:
    """Writes GradDrop's gradient over existing tensors, or adds it to them.

    Args:
        out: P dense tensors of the gradients' shapes and dtypes, as for :func:`mtl_ext.ops.combine_`. May be the first
            task's own gradients.
        grads: K * P strided tensors, task-major, as for :func:`graddrop`.
        num_tasks: K.
        seed: [2], int64, as for :func:`graddrop`; elements are counted in the memory order of ``out``.
        uniform: P float32 tensors instead of a seed.
        leak: [K], float64; None: zeros.
        sigmoid: as for :func:`graddrop`.
        kappa: as for :func:`graddrop`.
        accumulate: add to ``out`` (as ``.grad`` accumulates) instead of overwriting it.
        keep_grad_norm: as for :func:`graddrop`; what was in ``out`` is not scaled. With ``accumulate`` the result needs
            memory of its own first.

    Raises:
        RuntimeError: as :func:`graddrop`, or a tensor of ``out`` differs from its gradients in shape, dtype or device,
            or is not dense.
    """
    check_not_empty("graddrop_", grads)
    check_out_not_empty("graddrop_", out, grads, num_tasks)
    arguments = (list(grads), num_tasks, seed, list(uniform), leak, sigmoid, kappa)
    if not keep_grad_norm:
        _graddrop_(list(out), *arguments, accumulate)
        return
    squared_norm = squared_norm_of_sum(grads, num_tasks)  # before `out`, which may be the first task's, is written
    dropped = [torch.empty_like(tensor) for tensor in out] if accumulate else list(out)
    _graddrop_(dropped, *arguments, False)
    # Parameters that no task reaches are neither measured nor scaled.
    absent = [first_present(grads, param, len(out)) is None for param in range(len(out))]
    dropped = [tensor.new_empty(0) if skip else tensor for skip, tensor in zip(absent, dropped, strict=True)]
    combine_(out, dropped, norm_factor(dropped, squared_norm), accumulate=accumulate)
