"""The central difference of two gradients: the second half of a finite difference."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import new_output, refuse
from mtl_ext.ops.named_lists import Lists, check_lists_not_empty, check_named_lists
from mtl_ext.ops.registry import define_operator


def finite_difference_reference(plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor) -> list[Tensor]:
    """Arithmetic in float64, rounded once."""
    out = finite_difference_fake(plus, minus, eps)
    _write(out, plus, minus, eps, accumulate=False)
    return out


def _write(
    out: Sequence[Tensor], plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor, *, accumulate: bool
) -> None:
    for target, up, down in zip(out, plus, minus, strict=True):
        if up.numel() > 0 or down.numel() > 0:
            zero = torch.zeros_like(target, dtype=torch.float64)
            difference = (up.double() if up.numel() > 0 else zero) - (down.double() if down.numel() > 0 else zero)
            quotient = torch.where(eps == 0, 0.0, difference * (0.5 / eps))
            target.copy_(target.double() + quotient if accumulate else quotient)


def finite_difference_fake(plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor) -> list[Tensor]:
    """Result shapes of finite_difference."""
    _check("finite_difference", plus, minus, eps)
    return [new_output(column) for column in zip(plus, minus, strict=True)]


def finite_difference__reference(
    out: Sequence[Tensor], plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor, accumulate: bool
) -> None:
    """The same over existing tensors, rounded once after the addition to `out`."""
    finite_difference__fake(out, plus, minus, eps, accumulate)
    _write(out, plus, minus, eps, accumulate=accumulate)


def finite_difference__fake(
    out: Sequence[Tensor], plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor, accumulate: bool
) -> None:
    """finite_difference_ returns nothing."""
    _check("finite_difference_", plus, minus, eps, {"out": out})


def _check(op: str, plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor, writes: Lists | None = None) -> None:
    """The twin of check_difference in csrc/perturb_arguments.h."""
    check_named_lists(op, {"plus": plus, "minus": minus}, writes)
    if eps.dim() != 0:
        refuse(op, f"eps has shape {list(eps.shape)}, expected []")
    if eps.dtype != torch.float64:
        refuse(op, f"eps has dtype {eps.dtype}, expected torch.float64")
    if eps.device != plus[0].device:
        refuse(op, f"eps is on {eps.device}, expected {plus[0].device} as plus[0]")


_finite_difference = define_operator(
    "finite_difference",
    "(Tensor[] plus, Tensor[] minus, Tensor eps) -> Tensor[]",
    finite_difference_reference,
    finite_difference_fake,
)
_finite_difference_ = define_operator(
    "finite_difference_",
    "(Tensor(a!)[] out, Tensor[] plus, Tensor[] minus, Tensor eps, bool accumulate) -> ()",
    finite_difference__reference,
    finite_difference__fake,
)


@torch.no_grad()
def finite_difference(plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor) -> list[Tensor]:
    """The central difference ``(plus - minus) / (2 eps)`` of two lists of gradients.

    Args:
        plus: P strided tensors on one device, float64, float32, bfloat16 or float16: the gradients at the parameters
            that :func:`perturb` moved up. An empty tensor is absent and counts as zero.
        minus: P tensors of equal shapes and dtypes, the gradients at those it moved down.
        eps: float64 [], on the same device, as :func:`perturb` returns it. 0 gives zeros and nothing is read; NaN gives
            NaN.

    Returns:
        P tensors in the layout of ``plus`` and ``minus`` where they agree, else contiguous; empty where both are
        absent. Computed in float64 and rounded once (bfloat16 and float16 by way of float32).

    Raises:
        RuntimeError: lengths, devices, dtypes or shapes of the two lists differ, a dtype is not supported, or ``eps``
            is not a float64 scalar on that device.
    """
    check_lists_not_empty("finite_difference", {"plus": plus, "minus": minus})
    result: list[Tensor] = _finite_difference(list(plus), list(minus), eps)
    return result


@torch.no_grad()
def finite_difference_(
    out: Sequence[Tensor], plus: Sequence[Tensor], minus: Sequence[Tensor], eps: Tensor, *, accumulate: bool = False
) -> None:
    """Writes the central difference over existing tensors, or adds it to them.

    Args:
        out: P dense tensors of the gradients' shapes and dtypes. May be the memory of ``plus`` or of ``minus``; other
            overlaps are not allowed. Where both are absent, ``out[p]`` is left as it is.
        plus: P strided tensors, as for :func:`finite_difference`.
        minus: P strided tensors, as for :func:`finite_difference`.
        eps: float64 [], as for :func:`finite_difference`.
        accumulate: add to ``out`` (as ``.grad`` accumulates) instead of overwriting it.

    Raises:
        RuntimeError: as :func:`finite_difference`, or a tensor of ``out`` differs from its gradients in shape, dtype or
            device, or is not dense.
    """
    check_lists_not_empty("finite_difference_", {"out": out, "plus": plus, "minus": minus})
    _finite_difference_(list(out), list(plus), list(minus), eps, accumulate)
