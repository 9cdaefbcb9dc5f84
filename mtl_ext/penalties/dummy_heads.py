"""Dummy heads: copies of a prediction head with parameters of their own, fixed, evaluated together."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mtl_ext.models.heads import fresh_copy
from mtl_ext.penalties.frozen_pattern import FrozenPattern

Params = dict[str, Tensor]
Inputs = Tensor | tuple[Tensor, ...]


class DummyHeads(nn.Module):
    """D dummies of one head, with the parameters side by side.

    Dummies draw nothing, so that two passes agree (Dropout is left out), and normalise by the batch without keeping
    running statistics.

    Args:
        head: the prediction head; one that torch.compile has wrapped is copied as it was before. Only read.
        count: D. The parameters are drawn on the CPU, from torch's global generator.

    Raises:
        TypeError: a layer of the head cannot be drawn anew.
        ValueError: the head has no parameters, or all of a dummy's are 0.
    """

    def __init__(self, head: nn.Module, count: int) -> None:
        super().__init__()
        head = getattr(head, "_orig_mod", head)
        param = next(head.parameters(), None)
        if param is None:
            raise ValueError(f"head ({type(head).__name__}) has no parameters: there is no gradient to take a norm of")
        source = deepcopy(head).cpu()
        self.copies = nn.ModuleList(still(fresh_copy(source)).to(param.device) for _ in range(count))
        for index, copy in enumerate(self.copies):
            if not any(bool(param.any()) for param in copy.parameters()):
                raise ValueError(f"all parameters of dummy {index} of the head are 0, expected random ones")

    @property
    def template(self) -> nn.Module:
        """The module that is called with the parameters of each."""
        return self.copies[0]

    def params(self) -> Params:
        """Name -> the D dummies' parameters [D, ...], new leaves that require grad."""
        columns = zip(*(copy.named_parameters() for copy in self.copies), strict=True)
        return {rows[0][0]: torch.stack([p.detach() for _, p in rows]).requires_grad_() for rows in columns}

    def outputs(
        self, params: Params, inputs: Inputs, pattern: Sequence[Tensor] | None = None, *, own_inputs: bool = False
    ) -> Tensor:
        """The D outputs [D, B, ...].

        Args:
            params: name -> [D, ...].
            inputs: what the head reads.
            pattern: activation pattern to keep to, see `recorded`; None: none.
            own_inputs: inputs are [D, B, ...] instead of [B, ...] for all dummies.
        """
        each = 0 if own_inputs else None
        if pattern is None:
            out: Tensor = torch.vmap(self._call, in_dims=(0, each))(params, inputs)
        else:
            out = torch.vmap(self._replay, in_dims=(0, each, 0))(params, inputs, list(pattern))
        return out

    def recorded(self, params: Params, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        """The outputs [D, B, ...], and the activation pattern, tensors [D, ...]."""
        result: tuple[Tensor, list[Tensor]] = torch.vmap(self._record, in_dims=(0, None))(params, inputs)
        return result

    def _call(self, params: Params, inputs: Inputs) -> Tensor:
        out: Tensor = functional_call(self.template, params, (inputs,))
        return out

    def _record(self, params: Params, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
        with FrozenPattern() as pattern:
            out = self._call(params, inputs)
        return out, pattern.tensors

    def _replay(self, params: Params, inputs: Inputs, tensors: list[Tensor]) -> Tensor:
        with FrozenPattern(tensors):
            return self._call(params, inputs)


def still(head: nn.Module) -> nn.Module:
    """Changes a head into one that draws nothing, keeps no statistics, and is not trained.

    Args:
        head: changed in place and returned; in training mode.
    """
    for parent in list(head.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, _DropoutNd):
                setattr(parent, name, nn.Identity())
    for layer in head.modules():
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return head.requires_grad_(False)


def tensors_of(inputs: Any) -> list[Tensor]:
    """The tensors of what a head reads, one or several."""
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def like(inputs: Any, tensors: Sequence[Tensor]) -> Inputs:
    """Other tensors in the place of those of `inputs`."""
    return tensors[0] if isinstance(inputs, Tensor) else tuple(tensors)
