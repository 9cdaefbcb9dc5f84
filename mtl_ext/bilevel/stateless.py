"""A model's losses at other parameters, without writing to the model."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtl_ext.losses import Losses

LossFn = Callable[[], Losses]


class _LossesOf(nn.Module):
    """A function of no arguments as the forward pass of a module that owns the model which the function calls."""

    def __init__(self, loss_fn: LossFn, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss_fns = (loss_fn,)  # in a tuple: a function that is a module itself must not become a submodule

    def forward(self) -> Losses:
        return self.loss_fns[0]()


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model that are trained, by name; one that is used twice comes once.

    Raises:
        ValueError: there are none.
    """
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    if not params:
        raise ValueError("model has no parameter that requires grad: nothing can be looked ahead to")
    return params


def losses_at(loss_fn: LossFn, model: nn.Module, params: Mapping[str, Tensor]) -> Losses:
    """The losses that a function gives while the model has other parameters.

    The model keeps its own parameters and buffers, bit for bit, also where `loss_fn` raises: buffers that a forward
    pass writes to (BatchNorm's running statistics and its count of batches) are copies meanwhile. The random numbers of
    the global generators (dropout) are those that the next forward pass would draw, and remain to be drawn. State
    that is neither parameter nor buffer, such as a counter in Python, is not protected.

    Args:
        loss_fn: ``() -> losses``, which calls this very model (a copy of it would keep its own parameters).
        model: the module whose parameters are replaced; the whole network or any part of it.
        params: name, as in ``model.named_parameters()`` -> tensor of the parameter's shape. Those left out are as they
            are. Differentiable by these tensors.

    Returns:
        What `loss_fn` gives.
    """
    state = dict(params) | {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    swapped = {f"model.{name}": tensor for name, tensor in state.items()}
    devices = {param.device for param in model.parameters() if param.is_cuda}
    with torch.random.fork_rng(sorted(devices, key=str)):
        losses: Losses = functional_call(_LossesOf(loss_fn, model), swapped, ())
    return losses
