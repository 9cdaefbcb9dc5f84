"""The paper's way to differentiate gradient norms: a central difference, with the activation pattern held."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from mtl_ext import ops
from mtl_ext.penalties.dummy_heads import DummyHeads, Params, like, tensors_of
from mtl_ext.penalties.frozen_pattern import CheckedPattern, FrozenPattern, KinkError
from mtl_ext.penalties.norm_gradient import LOW_PRECISION, Evaluation, row_norms

NAIVE_RADIUS = 1e-9
# How far outputs may move, as a share of their norm: all together, and the one of a sample or pixel that moves most.
OUTPUT_CHANGE = 0.005
LARGEST_CHANGE = 0.01
# Small outputs of a few pixels make the step no smaller than this, or rounding would spoil it for all others.
LARGEST_EXCESS = 24.0
Rows = list[list[Tensor]]
"""The D dummies' tensors, each dummy's in a list."""


class FiniteDifference:
    """The norms of the batch's gradients, and their derivative by a central difference.

    With the direction ``v = g / |g|`` of a dummy's gradient g, the derivative of ``|g|`` by the inputs z is
    ``(dL/dz at h + eps v - dL/dz at h - eps v) / (2 eps)``: three passes through the head and no second derivative.
    Across the kinks of rectifiers, maxima and absolute values that is wrong by a multiple, so both passes keep the
    activation pattern of the unperturbed one. The step is ``eps0 = 0.05 u^(1/3) |h|``, u the machine epsilon, or so
    much less that the outputs o move by half a percent, ``0.005 |o| eps0 / |o(h + eps0 v) - o(h)|``, which a forward
    pass finds out and the host waits for. Nor may the output vector of a sample or pixel move by more than 1% (as long
    as that makes the step no more than 24 times smaller): losses of directions, such as the cosine, are curved where
    outputs are short. A gradient of 0 has derivative 0. Computed in the dummies' own precision.

    Args:
        dummies: D heads of one task.
        loss: (output, target) -> scalar.
        radius: the step in place of that rule, relative to the norm of the parameters.
        frozen: False lets the pattern change, for comparison. Float64 heads whose pattern cannot be frozen are treated
            so, with a radius of 1e-9.

    Attributes:
        radii: the D dummies' last steps, relative to the norms of their parameters.
    """

    def __init__(
        self,
        dummies: DummyHeads,
        loss: Callable[[Any, Any], Tensor],
        radius: float | None = None,
        frozen: bool = True,
    ) -> None:
        self.dummies = dummies
        self.loss = loss
        self.radius = radius
        self.frozen = frozen
        self.radii: list[float] = []
        self._checked = not frozen

    def __call__(self, evaluation: Evaluation) -> tuple[Tensor, list[Tensor | None]]:
        """The norms [D], and the gradients of their sum with respect to the inputs.

        Raises:
            ValueError: heads of low precision, or the pattern of head or loss cannot be frozen, naming the function.
        """
        with torch.autocast(evaluation.autocast[0], enabled=False):
            return self._differenced(evaluation)

    def _differenced(self, evaluation: Evaluation) -> tuple[Tensor, list[Tensor | None]]:
        params = self.dummies.params()
        dtype = next(iter(params.values())).dtype
        if dtype in LOW_PRECISION:
            raise ValueError(f"a head is {dtype}, too coarse for a finite difference: expected mode='exact'")
        tensors = [tensor.detach().to(dtype) for tensor in tensors_of(evaluation.inputs)]
        if not self._checked:
            self._check(params, tensors, evaluation)
        base = self._unperturbed(params, tensors, evaluation)
        plus, minus, steps = self._moved(base, evaluation)
        above, below = (self._input_gradients(base, rows, evaluation) for rows in (plus, minus))
        quotients = [
            ops.finite_difference([grad[d] for grad in above], [grad[d] for grad in below], eps)
            for d, eps in enumerate(steps)
        ]
        return evaluation.unscaled(base.norms), [torch.stack(column).sum(0) for column in zip(*quotients, strict=True)]

    def _check(self, params: Params, tensors: Sequence[Tensor], evaluation: Evaluation) -> None:
        """Looks once whether the pattern can be frozen."""
        one = {name: param[0].detach().requires_grad_() for name, param in params.items()}
        inputs = like(evaluation.inputs, [tensor.clone().requires_grad_() for tensor in tensors])
        try:
            with torch.enable_grad(), CheckedPattern():
                self.loss(functional_call(self.dummies.template, one, (inputs,)), evaluation.targets)
        except KinkError as error:
            if tensors[0].dtype != torch.float64:
                raise ValueError(
                    "the activation pattern of a head or its loss cannot be frozen, and in float32 the finite "
                    f"difference is wrong without: there is {error}. Take mode='exact', or float64 heads"
                ) from error
            self.frozen, self.radius = False, NAIVE_RADIUS
        self._checked = True

    def _unperturbed(self, params: Params, tensors: list[Tensor], evaluation: Evaluation) -> "_Base":
        """One pass through the dummies, and their own gradients."""
        with torch.enable_grad():
            outputs, pattern = self.dummies.recorded(params, like(evaluation.inputs, tensors))
            losses, loss_patterns = [], []
            for out in outputs:
                with FrozenPattern() as recorded:
                    losses.append(self.loss(out, evaluation.targets))
                loss_patterns.append(recorded.tensors)
            total = evaluation.scaled(torch.stack(losses)).sum()
            grads = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        known = {name: grad for name, grad in zip(params, grads, strict=True) if grad is not None}
        return _Base(params, tensors, outputs.detach(), pattern, loss_patterns, known, row_norms(known))

    def _moved(self, base: "_Base", evaluation: Evaluation) -> tuple[Rows, Rows, list[Tensor]]:
        """The parameters on both sides of each dummy, and the steps between, float64 []."""
        radius = 0.05 * torch.finfo(base.outputs.dtype).eps ** (1 / 3) if self.radius is None else self.radius
        self.radii = [radius] * len(base.norms)
        plus, minus, steps = base.moved(self.radii)
        if self.radius is not None:
            return plus, minus, steps
        with torch.no_grad():
            outputs = self._outputs(base, plus, [repeated(tensor, len(plus)) for tensor in base.tensors], evaluation)
        excess = excess_change(base.outputs, outputs).tolist()
        if max(excess) == 1.0:
            return plus, minus, steps
        self.radii = [radius / factor for factor in excess]
        return base.moved(self.radii)

    def _outputs(self, base: "_Base", rows: Rows, tensors: list[Tensor], evaluation: Evaluation) -> Tensor:
        """The outputs [D, B, ...] at other parameters, of inputs [D, B, ...]."""
        inputs = like(evaluation.inputs, tensors)
        return self.dummies.outputs(base.at(rows), inputs, base.pattern if self.frozen else None, own_inputs=True)

    def _input_gradients(self, base: "_Base", rows: Rows, evaluation: Evaluation) -> tuple[Tensor, ...]:
        """Gradients [D, B, ...] with respect to the inputs, at other parameters."""
        leaves = [repeated(tensor, len(rows)).requires_grad_() for tensor in base.tensors]
        losses = []
        with torch.enable_grad():
            outputs = self._outputs(base, rows, leaves, evaluation)
            for out, pattern in zip(outputs, base.loss_patterns, strict=True):
                with FrozenPattern(pattern if self.frozen else None):
                    losses.append(self.loss(out, evaluation.targets))
            total = evaluation.scaled(torch.stack(losses)).sum()
        return torch.autograd.grad(total, leaves, materialize_grads=True)


@dataclass(frozen=True)
class _Base:
    """The unperturbed pass.

    Attributes:
        params: name -> [D, ...].
        tensors: the inputs, detached.
        outputs: [D, B, ...].
        pattern: of the heads, tensors [D, ...].
        loss_patterns: of each dummy's loss.
        grads: name -> [D, ...], of the parameters that the loss reaches.
        norms: of those [D].
    """

    params: Params
    tensors: list[Tensor]
    outputs: Tensor
    pattern: list[Tensor]
    loss_patterns: list[list[Tensor]]
    grads: Params
    norms: Tensor

    def moved(self, radii: Sequence[float]) -> tuple[Rows, Rows, list[Tensor]]:
        """The parameters ``h + eps v`` and ``h - eps v``, and eps, for a relative radius per dummy."""
        sides = []
        for d, radius in enumerate(radii):
            length = torch.where(self.norms[d] > 0, self.norms[d], 1.0)
            direction = [(grad[d] / length).to(grad.dtype) for grad in self.grads.values()]
            params = [self.params[name][d].detach() for name in self.grads]
            sides.append(ops.perturb(params, direction, radius, relative=True))
        plus, minus, steps = zip(*sides, strict=True)
        return list(plus), list(minus), list(steps)

    def at(self, rows: Rows) -> Params:
        """All parameters, with those that the loss reaches replaced."""
        columns = [torch.stack(column) for column in zip(*rows, strict=True)]
        return self.params | dict(zip(self.grads, columns, strict=True))


def excess_change(before: Tensor, after: Tensor) -> Tensor:
    """By what factor outputs [D, B, C, ...] have moved too far, at least 1: [D]."""
    change = row_norms({"": after - before}) / row_norms({"": before}) / OUTPUT_CHANGE
    if before.dim() > 2 and before.shape[2] > 1:
        largest = ((after - before).norm(dim=2) / before.norm(dim=2)).flatten(1).amax(1) / LARGEST_CHANGE
        change = torch.maximum(change, largest.clamp(max=LARGEST_EXCESS))
    return change.nan_to_num(1.0, posinf=1.0).clamp(min=1.0)


def repeated(tensor: Tensor, count: int) -> Tensor:
    """A tensor for each dummy [D, ...], without a copy."""
    return tensor.expand(count, *tensor.shape)
