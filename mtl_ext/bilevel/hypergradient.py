"""How the loss after a virtual step depends on the weights of the tasks in that step."""

from collections.abc import Callable, Mapping, Sequence
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
        gradient: [K] float64, the derivative of the meta loss by the weights; from `hyperjacobian` [M, K], a row for
            each of the M meta losses.
        train: the training losses, at the model's parameters; None where the step's gradient was there already.
        meta: the meta losses, after the virtual step.
    """

    gradient: Tensor
    train: TaskLosses | None
    meta: TaskLosses

    @property
    def losses(self) -> list[TaskLosses]:
        """The training losses, where they were computed, and the meta losses."""
        return [self.meta] if self.train is None else [self.train, self.meta]


def hypergradient(
    train_losses: LossFn,
    meta_losses: LossFn,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: Tensor | Callable[[TaskLosses], Tensor] | None,
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
        weights: w, [K]; or the training losses -> w, where it goes by their names; or None: the gradient of the
            weighted sum is what the parameters' ``.grad`` holds, from the backward pass of the real step. That saves a
            forward and a backward pass on the training batch.
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
    ahead = _Ahead(train_losses, meta_losses, model, optimizer, weights, virtual_step)
    importance = torch.ones_like(ahead.meta.values) if meta_weights is None else meta_weights(ahead.meta)
    direction = ahead.direction(ahead.meta.tensors, importance)
    products = task_products(train_losses, model, direction, mode=mode, eps=eps)
    return Hypergradient(products, ahead.train, ahead.meta)


def hyperjacobian(
    train_losses: LossFn,
    meta_losses: LossFn,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    weights: Tensor,
    *,
    mode: str = "jvp",
    virtual_step: str = "own",
) -> Hypergradient:
    """The gradients of all M meta losses after the virtual step by the weights: `hypergradient`, row by row.

    The virtual step and the meta batch's forward pass are shared. Each row costs a backward pass on the meta batch, and
    a forward-mode pass or two forward passes on the training batch; no more than one gradient is held at a time.

    Args:
        train_losses: as for `hypergradient`, like the other arguments.
        meta_losses: ``() -> M losses``.
        model: the network.
        optimizer: the optimizer that trains it.
        weights: w, [K].
        mode: see `task_products`.
        virtual_step: form of the step, see `VirtualStep`.

    Returns:
        The rows, those of losses that are not finite not finite either, and the losses.

    Raises:
        ValueError: an argument cannot be used, naming it.
        RuntimeError: see `task_products`.
    """
    ahead = _Ahead(train_losses, meta_losses, model, optimizer, weights, virtual_step)
    one = torch.ones(1, dtype=torch.float64)
    rows = []
    for later, loss in zip(reversed(range(len(ahead.meta))), ahead.meta.tensors, strict=True):
        direction = ahead.direction([loss], one, retain_graph=later > 0)
        rows.append(task_products(train_losses, model, direction, mode=mode))
    return Hypergradient(torch.stack(rows), ahead.train, ahead.meta)


class _Ahead:
    """A virtual step, the losses before it, and the meta losses after it with their graph."""

    @torch.enable_grad()
    def __init__(
        self,
        train_losses: LossFn,
        meta_losses: LossFn,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        weights: Tensor | Callable[[TaskLosses], Tensor] | None,
        virtual_step: str,
    ) -> None:
        params = trainable_parameters(model)
        self.names = list(params)
        self.train: TaskLosses | None = None
        grads = [param.grad for param in params.values()]
        if weights is not None:
            self.train, grads = _weighted_step(train_losses, model, params, weights)
        elif all(grad is None for grad in grads):
            raise ValueError("no parameter of model has a .grad to share: call the method's backward first")
        self.step = VirtualStep(optimizer, list(params.values()), grads, form=virtual_step)
        self.params = [param.requires_grad_() for param in self.step.params]
        self.meta = TaskLosses(losses_at(meta_losses, model, dict(zip(params, self.params, strict=True))))

    @torch.enable_grad()
    def direction(
        self, losses: Sequence[Tensor], importance: Tensor, *, retain_graph: bool = False
    ) -> dict[str, Tensor]:
        """Along it, training loss k changes as the weighted sum of some meta losses does by weight k."""
        slopes = weighted_gradient("meta_losses", losses, importance, self.params, retain_graph=retain_graph)
        return dict(zip(self.names, self.step.pull_back(slopes), strict=True))


def _weighted_step(
    train_losses: LossFn,
    model: nn.Module,
    params: Mapping[str, nn.Parameter],
    weights: Tensor | Callable[[TaskLosses], Tensor],
) -> tuple[TaskLosses, list[Tensor | None]]:
    """The training losses, and the gradient of their weighted sum."""
    train = TaskLosses(losses_at(train_losses, model, params))
    weights = weights if isinstance(weights, Tensor) else weights(train)
    if weights.shape != (len(train),):
        raise ValueError(f"weights has shape {list(weights.shape)}, expected [K] = [{len(train)}]: one per train loss")
    return train, weighted_gradient("train_losses", train.tensors, weights, list(params.values()))


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


def weighted_gradient(
    name: str, losses: Sequence[Tensor], weights: Tensor, params: Sequence[Tensor], *, retain_graph: bool = False
) -> list[Tensor | None]:
    """The gradient of the weighted sum of scalar losses; None for a parameter that no loss reaches.

    Raises:
        ValueError: they reach none at all, naming the function that gave the losses.
    """
    factors = [w.to(loss).reshape(loss.shape) for w, loss in zip(weights, losses, strict=True)]
    grads: list[Tensor | None] = list(
        torch.autograd.grad(losses, params, factors, retain_graph=retain_graph, allow_unused=True)
    )
    if all(grad is None for grad in grads):
        raise ValueError(f"{name} reaches no parameter of model: the function has to call this very module, not a copy")
    return grads
