"""How the loss after a virtual step depends on the weights of the tasks in that step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_ext.bilevel.stateless import LossFn, losses_at, trainable_parameters
from mtl_ext.bilevel.task_products import task_products
from mtl_ext.bilevel.virtual_step import VirtualStep
from mtl_ext.losses import TaskLosses


@dataclass(frozen=True)
class Hypergradient:
    """What looking ahead gave.

    Attributes:
        gradient: [K] float64, the derivative of the meta loss by the weights.
        train: the training losses, at the model's parameters.
        meta: the meta losses, after the virtual step.
    """

    gradient: Tensor
    train: TaskLosses
    meta: TaskLosses


@torch.enable_grad()
def hypergradient(
    train_losses: LossFn,
    meta_losses: LossFn,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: Tensor | Callable[[TaskLosses], Tensor],
    *,
    meta_weights: Callable[[TaskLosses], Tensor] | None = None,
    mode: str = "jvp",
    virtual_step: str = "own",
    eps: float | None = None,
) -> Hypergradient:
    """The gradient of ``F(params'(w))`` by w: F the meta loss, ``params'`` the optimizer's step on ``sum_k w_k L_k``.

    With ``v = dF / d params'`` and ``u = (d params' / d gradient)^T v`` it is ``<dL_k / d params, u>``, which
    `task_products` finds for all K tasks at once; ``-lr <dL_k / d params, v>`` for gradient descent. It costs a forward
    and a backward pass on either batch, and one forward-mode pass or two forward passes on the training batch. The
    model, its buffers, the optimizer and the global random numbers are left as they are, bit for bit, see `losses_at`.

    Args:
        train_losses: ``() -> K losses`` on the batch of the coming step, which calls `model`. Called two or three
            times, always with the random numbers (dropout) that the next forward pass would draw.
        meta_losses: ``() -> losses`` on other data, which calls `model`.
        model: the network.
        optimizer: the optimizer that trains it.
        weights: w, [K]; or the training losses -> w, where it goes by their names.
        meta_weights: the meta losses -> their weights [their number] in F; by default F is their sum.
        mode: see `task_products`.
        virtual_step: form of the step, see `VirtualStep`.
        eps: of the finite difference along u, see `task_products`: 1 moves the parameters by u, lr v for descent.

    Returns:
        The gradient, not finite where a loss is not, and the losses.

    Raises:
        ValueError: an argument cannot be used, naming it.
        RuntimeError: see `task_products`.
    """
    params = trainable_parameters(model)
    train = TaskLosses(losses_at(train_losses, model, params))
    weights = weights if isinstance(weights, Tensor) else weights(train)
    if weights.shape != (len(train),):
        raise ValueError(f"weights has shape {list(weights.shape)}, expected [K] = [{len(train)}]: one per train loss")
    grads = _gradients("train_losses", train, weights, list(params.values()))
    step = VirtualStep(optimizer, list(params.values()), grads, form=virtual_step)
    ahead = [param.requires_grad_() for param in step.params]
    meta = TaskLosses(losses_at(meta_losses, model, dict(zip(params, ahead, strict=True))))
    importance = torch.ones_like(meta.values) if meta_weights is None else meta_weights(meta)
    slopes = _gradients("meta_losses", meta, importance, ahead)
    direction = dict(zip(params, step.pull_back(slopes), strict=True))
    products = task_products(train_losses, model, direction, mode=mode, eps=eps)
    return Hypergradient(products, train, meta)


def chain_rule(function: Callable[[Tensor], Tensor], values: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by what the weights are a function of: ``(d weights / d values)^T gradient``.

    Args:
        function: values -> weights [K], for example ``lambda values: values.softmax(0)``.
        values: what is learnt, of any shape.
        gradient: [K], by the weights.

    Returns:
        A tensor of the shape of `values`.
    """
    values = values.detach().requires_grad_()
    with torch.enable_grad():
        weights = function(values)
    return torch.autograd.grad(weights, values, gradient.to(weights))[0]


def _gradients(name: str, losses: TaskLosses, weights: Tensor, params: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradient of the weighted sum of losses; None where no loss reaches a parameter."""
    factors = [w.to(loss).reshape(loss.shape) for w, loss in zip(weights, losses.tensors, strict=True)]
    grads: list[Tensor | None] = list(torch.autograd.grad(losses.tensors, params, factors, allow_unused=True))
    if all(grad is None for grad in grads):
        raise ValueError(f"{name} reaches no parameter of model: the function has to call this very module, not a copy")
    return grads
