"""Methods that weigh the losses: one backward pass."""

from collections.abc import Iterable
from itertools import compress
from typing import ClassVar

import torch
from torch import Tensor

from mtl_ext.gradients import Features
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import Method, StepOptions, check_num_tasks, check_range
from mtl_ext.penalty import penalty_cotangents


class LossMethod(Method):
    """A method that weighs the losses: one backward pass of a scalar function of them.

    ``shared``, ``features`` and ``allow_unused`` are accepted by `backward` and not needed: the
    weights act on heads and trunk alike. ``combine=False`` is refused: the weights depend on each batch's losses.

    Args:
        num_tasks: K, for a method with something per task; `backward` then refuses other numbers of losses.
        reduction: see `Method`; it multiplies the scalar that is minimised, hence the weights, and the gradients of the
            method's own parameters, too.
        nonfinite: see `Method`.

    Attributes:
        leaves_out_zeros: whether a task whose weight is exactly 0 takes no part in the backward pass, so that what is
            its alone has no ``.grad``, and no optimizer moves it; looking waits for the device.
    """

    level = "loss"
    leaves_out_zeros: ClassVar[bool] = False

    def __init__(self, *, num_tasks: int | None = None, reduction: str | None = None, nonfinite: str = "raise") -> None:
        super().__init__(reduction=reduction, nonfinite=nonfinite)
        if num_tasks is not None:
            check_range("num_tasks", num_tasks, 1)
        self.num_tasks = num_tasks

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The scalar that is minimised, as the formula gives it: before ``reduction``.

        Args:
            losses: [K] float64, to be differentiated by.
        """
        raise NotImplementedError

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        """One backward pass of all losses, each with its weight: the derivative of what is minimised."""
        if not options.combine:
            raise ValueError(
                f"{type(self).__name__} weighs losses, combine=False would collect gradients: leave it out"
            )
        task_losses = TaskLosses(losses, options.scaler)
        if self.num_tasks is not None:
            check_num_tasks(len(task_losses), self.num_tasks)
        if self._skips(task_losses):
            return torch.zeros_like(task_losses.values)
        values = task_losses.values.requires_grad_()
        combined = self.combined_loss(values) * self.reduction_factor(len(values))
        if not combined.requires_grad:
            raise RuntimeError(f"{type(self).__name__}.combined_loss does not depend on the losses")
        scale = combined.new_ones(()) if task_losses.scale is None else task_losses.scale.to(combined.dtype)
        combined.backward(scale)  # type: ignore[no-untyped-call]  # also reaches the method's own parameters
        assert values.grad is not None
        factors = values.grad
        weights = factors / scale
        trained = (weights != 0).tolist() if self.leaves_out_zeros else [True] * len(weights)
        roots = list(compress(task_losses.tensors, trained))
        cotangents = [
            f.to(loss.dtype).reshape(loss.shape) for f, loss in zip(compress(factors, trained), roots, strict=True)
        ]
        penalties = compress(penalty_cotangents(options.penalties, task_losses), trained)
        for weight, row in zip(compress(weights, trained), penalties, strict=True):
            roots += [tensor for tensor, _ in row]
            cotangents += [weight.to(grad.dtype) * grad for _, grad in row]
        torch.autograd.backward(roots, cotangents, retain_graph=options.retain_graph)
        return weights


def log_of(losses: Tensor) -> Tensor:
    """The losses' logarithms; a loss of 0 counts as absent: logarithm 0, gradient 0.

    Raises:
        ValueError: a loss below 0. Only a CPU tensor is looked at; on a device the logarithm is NaN.
    """
    if losses.is_cpu and bool((losses < 0).any()):
        k = int((losses < 0).nonzero()[0])
        raise ValueError(f"losses[{k}] is {losses[k].item()}, expected at least 0: its logarithm is taken")
    return losses.masked_fill(losses == 0, 1.0).log()
