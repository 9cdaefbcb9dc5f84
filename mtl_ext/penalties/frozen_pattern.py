"""A network with its activation pattern held: which units are on, which entry is the maximum, which sign an error has.

A finite difference across a kink (of a rectifier, a maximum, an absolute value) measures the jump and not the slope.
With the pattern of the unperturbed pass every kinked function is the linear one that it is there, and the difference
quotient converges to the derivative that double backward gives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Piecewise linear in their first argument, element by element.
ELEMENTWISE = {
    functional.relu,
    functional.leaky_relu,
    functional.hardtanh,
    functional.relu6,
    functional._threshold,  # type: ignore[attr-defined]
    functional.hardsigmoid,
    torch.relu,
    torch.abs,
    torch.clamp,
    Tensor.relu,
    Tensor.abs,
    Tensor.__abs__,
    Tensor.clamp,
}
# Maxima over windows -> number of dimensions of the window.
POOLS = {
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
    functional.max_pool3d: 3,
    functional.adaptive_max_pool1d: 1,
    functional.adaptive_max_pool2d: 2,
    functional.adaptive_max_pool3d: 3,
}
# Kinked only where a norm is next to 0.
SMOOTH = {functional.normalize, functional.cosine_similarity}
# Kernels with kinks, jumps or draws, by name; what does not go through one of the functions above ends there.
KERNELS = """
    relu leaky_relu rrelu prelu threshold hardtanh hardsigmoid hardswish hardshrink softshrink elu abs sign sgn clamp
    clamp_min clamp_max max min amax amin aminmax maximum minimum fmax fmin median nanmedian mode kthvalue topk sort
    cummax cummin round floor ceil trunc frac fmod remainder max_pool2d max_pool2d_with_indices max_pool3d_with_indices
    adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d smooth_l1_loss huber_loss
    multi_margin_loss multilabel_margin_loss_forward native_dropout bernoulli _local_scalar_dense
"""
KINKED = frozenset(KERNELS.split())


class FrozenPattern(TorchFunctionMode):
    """Inside a ``with`` block, kinked functions record their pattern, or keep to one that was recorded.

    Args:
        recorded: the tensors of a block that made the same calls before; None records.

    Attributes:
        tensors: the pattern: slope and offset of elementwise functions, indices of maxima.
    """

    def __init__(self, recorded: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._recorded = None if recorded is None else iter(recorded)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Stands in for every torch function that is called in the block."""
        kwargs = kwargs or {}
        if func in ELEMENTWISE and args and args[0].is_floating_point():  # counts have no slope
            return self._elementwise(func, args, kwargs)
        if func in POOLS and args:
            return self._pool(func, args, kwargs)
        if func is functional.l1_loss and args:
            return self._l1_loss(*args, **kwargs)
        return func(*args, **kwargs)

    def _kept(self, record: Callable[[], Sequence[Tensor]], count: int) -> list[Tensor]:
        """The next tensors of the pattern."""
        if self._recorded is not None:
            return [next(self._recorded) for _ in range(count)]
        tensors = [tensor.detach() for tensor in record()]
        self.tensors += tensors
        return tensors

    def _elementwise(self, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """The line that the function is at its argument: ``slope * x + offset``."""
        x, *rest = args
        in_place = kwargs.pop("inplace", False)

        def record() -> Sequence[Tensor]:
            y, pull = torch.func.vjp(lambda x: func(x, *rest, **kwargs), x.detach())  # type: ignore[misc]  # no aux
            (slope,) = pull(torch.ones_like(y))
            return slope, y - slope * x.detach()

        slope, offset = self._kept(record, 2)
        out: Tensor = slope * x + offset
        if in_place:
            x.copy_(out)
        return out

    def _pool(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The entries at the maxima's indices."""
        x, *rest = args
        with_indices = kwargs.pop("return_indices", False)
        (indices,) = self._kept(lambda: func(x, *rest, **kwargs, return_indices=True)[1:], 1)
        first = -POOLS[func]
        out = x.flatten(first).gather(-1, indices.flatten(first)).unflatten(-1, indices.shape[first:])
        return (out, indices) if with_indices else out

    def _l1_loss(self, output: Tensor, target: Tensor, *args: Any, reduction: str = "mean", **kwargs: Any) -> Tensor:
        """Its absolute values are those of `_elementwise`."""
        if args or kwargs.get("weight") is not None:
            raise KinkError("l1_loss with weights or positional options")
        error = self._elementwise(torch.abs, (output - target,), {})
        return error.mean() if reduction == "mean" else error.sum() if reduction == "sum" else error


class KinkError(Exception):
    """A function whose pattern cannot be frozen; its name is the message."""


class _RefuseKinks(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises at kernels with kinks."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name.rstrip("_") in KINKED:
            raise KinkError(name)
        return func(*args, **(kwargs or {}))


class CheckedPattern(FrozenPattern):
    """Also raises where a function of something that requires grad has kinks and no pattern that could be frozen.

    Raises:
        KinkError: naming the function.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Lets through what does not depend on the parameters, what can be frozen, and what is smooth."""
        kwargs = kwargs or {}
        given = _tensors([*args, *kwargs.values()])
        if not any(tensor.requires_grad for tensor in given):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if func in ELEMENTWISE and any(tensor.requires_grad for tensor in given[1:]):
            raise KinkError(f"{name} with bounds that are not constant")
        if func in SMOOTH or (args and (func in ELEMENTWISE or func in POOLS or func is functional.l1_loss)):
            return super().__torch_function__(func, types, args, kwargs)
        try:
            with _RefuseKinks():  # type: ignore[no-untyped-call]
                result = func(*args, **kwargs)
        except KinkError as kernel:
            raise KinkError(name if str(kernel) == name else f"{name}, which computes {kernel}") from kernel
        if any(not tensor.requires_grad for tensor in _tensors([result])):
            raise KinkError(f"{name}, which is not differentiable")
        return result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among some values, those in lists and tuples included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found
