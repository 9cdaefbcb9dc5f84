"""The norms of every sample's own gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from mtl_ext.penalties.dummy_heads import DummyHeads, Params, like, tensors_of
from mtl_ext.penalties.norm_gradient import LOW_PRECISION, Evaluation, norm_gradient


class SampleNorms:
    """Means over the samples of their gradients' norms, and the derivative, by double backward.

    A linear layer that reads one row per sample has the gradient ``delta a^T`` there, of which only the norm is formed,
    ``|delta| |a|``; other layers' gradients are held for each sample, B times their parameters.

    Args:
        dummies: D heads of one task.
        loss: (output, target) -> scalar.

    Raises:
        ValueError: a layer of the head couples the samples of a batch.
    """

    def __init__(self, dummies: DummyHeads, loss: Callable[[Any, Any], Tensor]) -> None:
        for name, layer in dummies.template.named_modules():
            if isinstance(layer, _BatchNorm):
                raise ValueError(
                    f"layer {name!r} ({type(layer).__name__}) of a head couples the samples of a batch, of which "
                    "reduction='sample' takes one by one: expected reduction='batch'"
                )
        self.dummies = dummies
        self.loss = loss
        self._linear: list[str] | None = None

    def __call__(self, evaluation: Evaluation) -> tuple[Tensor, list[Tensor | None]]:
        """The means [D], and the gradients of their sum with respect to the inputs."""
        if self._linear is None:
            self._linear = self._one_row_layers(evaluation)

        def norms(params: Params, inputs: Any) -> Tensor:
            weights = {name: params.pop(f"{name}.weight") for name in self._linear or ()}
            count = len(tensors_of(inputs)[0])
            # A parameter of its own for every sample, without a copy. Only the forward pass goes through vmap:
            # torch.func.grad there has wrong second derivatives of LayerNorm (torch 2.13).
            own = {name: _repeated(param.detach(), count).requires_grad_() for name, param in params.items()}
            per_sample = torch.vmap(self._loss_of_one(evaluation), in_dims=(0, None, 0, 0))
            losses, read = torch.vmap(per_sample, in_dims=(0, 0, None, None))(own, weights, inputs, evaluation.targets)
            total = evaluation.scaled(losses).sum()
            grads = torch.autograd.grad(total, list(own.values()), create_graph=True, allow_unused=True)
            squares = {name: _squares(grad) for name, grad in zip(own, grads, strict=True) if grad is not None}
            closed = [squares[f"{name}.bias"] * _squares(row) for name, row in read.items()]
            total_squares = torch.stack([*squares.values(), *closed]).sum(0)
            positive = total_squares > 0
            return torch.where(positive, total_squares.where(positive, 1.0).sqrt(), 0.0).mean(dim=1)

        return norm_gradient(self.dummies, evaluation, norms)

    def _loss_of_one(self, evaluation: Evaluation) -> Callable[[Params, Params, Any, Any], tuple[Tensor, Params]]:
        """(parameters, weights of linear layers, inputs, target) of a sample -> loss, and what the layers read."""
        head = self.dummies.template
        layers = {name: head.get_submodule(name) for name in self._linear or ()}

        def loss_of(params: Params, weights: Params, inputs: Any, target: Any) -> tuple[Tensor, Params]:
            read: Params = {}
            hooks = [
                layer.register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
                for name, layer in layers.items()
            ]
            batch_of_one = like(inputs, [tensor[None] for tensor in tensors_of(inputs)])
            try:
                full = params | {f"{name}.weight": weight for name, weight in weights.items()}
                out = evaluation.computed(lambda: functional_call(head, full, (batch_of_one,)))
            finally:
                for hook in hooks:
                    hook.remove()
            return self.loss(out, target[None]), read

        return loss_of

    def _one_row_layers(self, evaluation: Evaluation) -> list[str]:
        """Names of the linear layers that read one row per sample, once, and share no parameter."""
        head = self.dummies.template
        rows: dict[nn.Module, list[int]] = {}
        uses = [id(param) for _, param in head.named_parameters(remove_duplicate=False)]

        def has_own(layer: nn.Linear) -> bool:
            return layer.bias is not None and all(uses.count(id(param)) == 1 for param in layer.parameters())

        layers = {
            name: layer for name, layer in head.named_modules() if name and type(layer) is nn.Linear and has_own(layer)
        }
        hooks = [
            layer.register_forward_pre_hook(lambda layer, args: rows.setdefault(layer, []).append(args[0][0].numel()))
            for layer in layers.values()
        ]
        try:
            with torch.no_grad():
                evaluation.computed(lambda: head(evaluation.inputs))
        finally:
            for hook in hooks:
                hook.remove()
        return [name for name, layer in layers.items() if rows.get(layer) == [layer.in_features]]


def _repeated(params: Tensor, count: int) -> Tensor:
    """Parameters [D, ...] for each of B samples, [D, B, ...]."""
    return params[:, None].expand(-1, count, *params.shape[1:])


def _squares(tensors: Tensor) -> Tensor:
    """Squared norms [D, B] of tensors [D, B, ...], in at least float32."""
    tensors = tensors.float() if tensors.dtype in LOW_PRECISION else tensors
    return tensors.flatten(2).square().sum(dim=2) if tensors.dim() > 2 else tensors.square()
