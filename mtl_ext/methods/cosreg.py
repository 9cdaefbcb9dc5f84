"""CosReg: a penalty on the cosines between the tasks' gradients."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtl_ext.gradients import Features, TaskGradients, listed, reads_own_input, trainable
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import Method, StepOptions, check_range
from mtl_ext.penalty import penalty_cotangents


class CosReg(Method):
    """Cosine regularisation (Suteu & Guo 2019): ``sum_k L_k + c / (K^2 - K) sum_{i != j} cos^2(g_i, g_j)``.

    The regulariser pushes the tasks' gradients towards orthogonality; its own gradient is exact, by double backward. At
    parameter level that goes through the network K times more; at feature level, where g_k is the gradient at the
    features, through the heads alone, and what arrives at the features joins the trunk's one backward pass. Operators
    without a second derivative are not allowed on the way, and what torch.compile makes of a model is one (but for its
    backend "eager"): leave uncompiled what is on the way. With one task, or where a gradient is 0, the cosines are 0.
    Penalties join the losses, not the cosines. ``combine=False`` is refused: the cosines are those of one batch. All
    weights are equal. TorchJD and LibMTL do not have it.

    Args:
        c: strength, at least 0.
        detach_heads: let the regulariser train the shared parameters only (at feature level: the trunk).
        reduction: ``"sum"`` as in the paper, or ``"mean"``: all of it divided by K, the regulariser included, so that c
            keeps its meaning.
        nonfinite: see `Method`; ``"skip"`` also waits for the gradients.
    """

    level = "gradient"
    second_derivatives = True

    def __init__(
        self, *, c: float = 10.0, detach_heads: bool = False, reduction: str = "sum", nonfinite: str = "raise"
    ) -> None:
        super().__init__(reduction=reduction, nonfinite=nonfinite)
        check_range("c", c, 0.0)
        self.c = c
        self.detach_heads = detach_heads

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        """Losses -> per-task gradients with graphs -> cosines -> one backward pass of losses and regulariser."""
        if not options.combine:
            raise ValueError("CosReg differentiates each batch's cosines, combine=False would collect: leave it out")
        if shared is None and features is None:
            raise ValueError("CosReg.backward needs shared=<shared parameters> or features=<what the heads read>")
        task_losses = TaskLosses(losses, options.scaler)
        if self._skips(task_losses):
            return torch.zeros_like(task_losses.values)
        boundary = [] if features is None else listed(features, task_losses)
        targets = boundary if shared is None else trainable(shared)
        gradients = TaskGradients(targets, task_losses)
        for k, (name, loss) in enumerate(zip(task_losses.names, task_losses.tensors, strict=True)):
            cotangent = task_losses.cotangent(k)
            grads = torch.autograd.grad(loss, targets, cotangent, create_graph=True, allow_unused=True)
            gradients.add_task(name, grads, allow_unused=options.allow_unused)
        if shared is None and features is not None and reads_own_input(features, gradients):
            raise ValueError(
                f"CosReg compares the tasks' gradients, but {task_losses.names[1]} reads features of its own input. "
                "Pass shared=<shared parameters> instead of features=."
            )
        gram = gradients.gram()
        self.gram = gram.detach()
        propagates = self.nonfinite == "propagate" or options.scaler is not None
        if self.nonfinite == "raise" and not propagates:
            self._raise_nonfinite(self.gram.diagonal(), task_losses.names, "the gradient of {} has squared norm {}")
        if self.nonfinite == "skip" and not propagates and not bool(self.gram.isfinite().all()):
            return torch.zeros_like(task_losses.values)
        self._backward(task_losses, gram, targets, options)
        return torch.full_like(task_losses.values, self.reduction_factor(len(task_losses)))

    def _backward(
        self,
        losses: TaskLosses,
        gram: Tensor,
        targets: Sequence[Tensor],
        options: StepOptions,
    ) -> None:
        """One pass of everything: losses, regulariser, penalties."""
        factor = self.reduction_factor(len(losses))
        scale = factor * (losses.values.new_ones(()) if losses.scale is None else losses.scale)
        roots = list(losses.tensors)
        cotangents = [scale.to(loss.dtype).reshape(loss.shape) for loss in roots]
        rows = penalty_cotangents(options.penalties, losses)
        extra = [(tensor, factor * grad) for row in rows for tensor, grad in row]
        regulariser = self.c * mean_squared_cosine(gram)
        if regulariser.requires_grad:
            scale = scale.to(regulariser.dtype)
            if self.detach_heads:
                grads = torch.autograd.grad(regulariser, targets, scale, retain_graph=True, allow_unused=True)
                extra += [(target, grad) for target, grad in zip(targets, grads, strict=True) if grad is not None]
            else:
                roots.append(regulariser)
                cotangents.append(scale)
        roots += [target for target, _ in extra]
        cotangents += [grad for _, grad in extra]
        torch.autograd.backward(roots, cotangents, retain_graph=options.retain_graph)


def mean_squared_cosine(gram: Tensor) -> Tensor:
    """The mean of the squared cosines over the pairs of different tasks; 0 with a zero gradient, and for one task.

    Args:
        gram: [K, K] float64, differentiable.
    """
    num_tasks = len(gram)
    squares = gram.diagonal()
    products = squares[:, None] * squares
    counts = (products > 0) & ~torch.eye(num_tasks, dtype=torch.bool, device=gram.device)
    cosines = torch.where(counts, gram.square() / products.where(counts, 1.0), 0.0)
    return cosines.sum() / max(num_tasks * num_tasks - num_tasks, 1)
