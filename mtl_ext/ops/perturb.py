"""Parameters moved to both sides along a direction: the first half of a finite difference."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.ops.checks import new_output, refuse
from mtl_ext.ops.named_lists import Lists, check_lists_not_empty, check_named_lists
from mtl_ext.ops.registry import define_operator


def perturb_reference(
    params: Sequence[Tensor], direction: Sequence[Tensor], radius: float, relative: bool
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Arithmetic in float64, rounded once."""
    plus, minus, _ = perturb_fake(params, direction, radius, relative)
    return plus, minus, _move(plus, minus, params, direction, radius, relative)


def _move(
    plus: Sequence[Tensor],
    minus: Sequence[Tensor],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    radius: float,
    relative: bool,
) -> Tensor:
    """Writes both sides and returns eps."""
    norm = _norm(direction)
    scale = radius * _norm(params) if relative else torch.full_like(norm, radius)
    # A norm of infinity or NaN makes NaN of eps instead of 0.
    eps = torch.where(norm == 0, 0.0, scale / norm + (norm - norm))
    for up, down, param, along in zip(plus, minus, params, direction, strict=True):
        if param.numel() > 0:
            step = eps * along.double() if along.numel() > 0 else torch.zeros_like(param, dtype=torch.float64)
            moved_up, moved_down = param.double() + step, param.double() - step
            up.copy_(moved_up)
            down.copy_(moved_down)
    return eps


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of a whole list."""
    total = torch.zeros((), dtype=torch.float64, device=tensors[0].device)
    for tensor in tensors:
        total += tensor.double().square().sum()
    return total.sqrt()


def perturb_fake(
    params: Sequence[Tensor], direction: Sequence[Tensor], radius: float, relative: bool
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Result shapes of perturb."""
    _check("perturb", params, direction)
    plus = [new_output(column) for column in zip(params, direction, strict=True)]
    return plus, [torch.empty_like(tensor) for tensor in plus], params[0].new_empty((), dtype=torch.float64)


def perturb__reference(
    plus: Sequence[Tensor],
    minus: Sequence[Tensor],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    radius: float,
    relative: bool,
) -> Tensor:
    """The same over existing tensors."""
    perturb__fake(plus, minus, params, direction, radius, relative)
    return _move(plus, minus, params, direction, radius, relative)


def perturb__fake(
    plus: Sequence[Tensor],
    minus: Sequence[Tensor],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    radius: float,
    relative: bool,
) -> Tensor:
    """Shape of eps."""
    _check("perturb_", params, direction, {"plus": plus, "minus": minus})
    return params[0].new_empty((), dtype=torch.float64)


def _check(op: str, params: Sequence[Tensor], direction: Sequence[Tensor], writes: Lists | None = None) -> None:
    """The twin of csrc/perturb_arguments.h."""
    check_named_lists(op, {"params": params, "direction": direction}, writes)
    for index, (param, along) in enumerate(zip(params, direction, strict=True)):
        if param.numel() == 0 and along.numel() > 0:
            found, expected = list(param.shape), list(along.shape)
            refuse(op, f"params[{index}] has shape {found}, expected {expected} as direction[{index}]")


_perturb = define_operator(
    "perturb",
    "(Tensor[] params, Tensor[] direction, float radius, bool relative) -> (Tensor[] plus, Tensor[] minus, Tensor eps)",
    perturb_reference,
    perturb_fake,
)
_perturb_ = define_operator(
    "perturb_",
    "(Tensor(a!)[] plus, Tensor(b!)[] minus, Tensor[] params, Tensor[] direction, float radius, bool relative)"
    " -> Tensor eps",
    perturb__reference,
    perturb__fake,
)


@torch.no_grad()
def perturb(
    params: Sequence[Tensor], direction: Sequence[Tensor], radius: float, *, relative: bool = False
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Parameters moved by ``eps = radius / |direction|`` to both sides, for a central finite difference.

    Args:
        params: P strided tensors on one device, float64, float32, bfloat16 or float16. They are only read: the model
            keeps its parameters, nothing has to be restored.
        direction: P tensors of the parameters' shapes and dtypes; an empty tensor is an absent gradient and counts as
            zero.
        radius: length of the step, over the whole list.
        relative: the step is ``radius * |params|`` long.

    Returns:
        ``(plus, minus, eps)``: P tensors ``params + eps * direction``, P tensors ``params - eps * direction``, and eps,
        float64 [], on the same device. In the layout of parameters and direction where they agree, else contiguous.
        Computed in float64 and rounded once (bfloat16 and float16 by way of float32). A zero direction gives eps = 0
        and the parameters themselves. A norm of Inf or NaN makes eps and every element that has a direction NaN.
        Norms run over the whole list in float64, good for 1e-150 to 1e150, the same bits for every number of threads.

    Raises:
        RuntimeError: lengths, devices, dtypes or shapes of the two lists differ, or a dtype is not supported.
    """
    check_lists_not_empty("perturb", {"params": params, "direction": direction})
    result: tuple[list[Tensor], list[Tensor], Tensor] = _perturb(list(params), list(direction), radius, relative)
    return result


@torch.no_grad()
def perturb_(
    plus: Sequence[Tensor],
    minus: Sequence[Tensor],
    params: Sequence[Tensor],
    direction: Sequence[Tensor],
    radius: float,
    *,
    relative: bool = False,
) -> Tensor:
    """Moves parameters as :func:`perturb` does, into existing tensors.

    Args:
        plus: P dense tensors of the parameters' shapes and dtypes. They or ``minus`` may be the memory of
            ``direction``; other overlaps are not allowed.
        minus: P tensors in the layout of ``plus``.
        params: P strided tensors, as for :func:`perturb`; empty ones leave ``plus`` and ``minus`` as they are.
        direction: P strided tensors, as for :func:`perturb`.
        radius: length of the step.
        relative: the step is ``radius * |params|`` long.

    Returns:
        eps, float64 [].

    Raises:
        RuntimeError: as :func:`perturb`, or a tensor of ``plus`` or ``minus`` differs from its parameter in shape,
            dtype or device, is not dense, or the two differ in layout.
    """
    check_lists_not_empty("perturb_", {"plus": plus, "minus": minus, "params": params, "direction": direction})
    result: Tensor = _perturb_(list(plus), list(minus), list(params), list(direction), radius, relative)
    return result
