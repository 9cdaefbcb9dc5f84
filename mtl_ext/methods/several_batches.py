"""Methods that compare gradients of independent batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import FeatureGradients, Features, TaskGradients
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import StepOptions, check_num_tasks, check_range
from mtl_ext.methods.grad_method import GradMethod


class SeveralBatches(GradMethod):
    """Weights from the products ``J1 J2^T`` of two batches' gradients, applied to those of a third, ``J3``.

    A single batch would give a biased estimate of the products of the expected gradients. At feature level, where
    different batches have different entries, products are those of the gradients summed over dimension 0, the batch.
    The heads are trained on the third batch alone. `backward` raises a ValueError where it is not given three batches'
    losses (and features, where these are given).

    Args:
        num_tasks: K.
        reduction: ``"mean"``, weights that sum to 1, or ``"sum"``: times K.
        weight_heads: weigh the heads' losses as well, as ``losses3.backward(weights)`` does.
        nonfinite: see `Method`; a bad loss or gradient of any of the three batches counts.

    Attributes:
        weights: [K] float64, kept between steps, start at 1 / K.
    """

    formula_gives = "mean"
    batches = 3
    weights: Tensor

    def __init__(
        self, num_tasks: int, *, reduction: str = "mean", weight_heads: bool = True, nonfinite: str = "raise"
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        self.register_buffer("weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        self._pair: list[TaskGradients] = []
        self._products: Tensor | None = None

    def updated(self, products: Tensor) -> Tensor:
        """The weights that are kept, after this step.

        Args:
            products: [K, K] float64, ``J1 J2^T``.
        """
        raise NotImplementedError

    def applied(self, weights: Tensor) -> Tensor:
        """The weights [K] of the third batch's gradients, from those that are kept."""
        return weights

    def _step(  # type: ignore[override]  # three of each
        self,
        losses: Sequence[Losses],
        shared: Iterable[Tensor] | None,
        features: Sequence[Features] | None,
        options: StepOptions,
    ) -> Tensor:
        """The first two batches' products, then a step on the third."""
        first, second, third = self._three("losses", losses)
        boundaries = self._three("features", features)
        penalties = self._three("penalties", options.penalties) if options.penalties else [()] * self.batches
        each = [replace(options, penalties=terms) for terms in penalties]
        shared = None if shared is None else list(shared)
        pair = []
        for batch, boundary, its_options in zip((first, second), boundaries[:2], each[:2], strict=True):
            task_losses = TaskLosses(batch, options.scaler)
            check_num_tasks(len(task_losses), len(self.weights))
            if self._skips(task_losses):
                return torch.zeros_like(task_losses.values)
            with self._task_gradients(task_losses, shared, boundary, its_options, collect_heads=True) as gradients:
                pair.append(gradients)
        self._add_pair(pair)
        if options.combine:
            self._products, self._pair = _products(self._pair), []
        return super()._step(third, shared, boundaries[2], each[2])

    def _three(self, name: str, given: Any) -> list[Any]:
        """Checks that there is one of each batch; None is three times None."""
        if given is None:
            return [None] * self.batches
        if isinstance(given, (Tensor, Mapping)) or len(given) != self.batches:
            found = type(given).__name__ if isinstance(given, (Tensor, Mapping)) else f"{len(given)} of them"
            raise ValueError(
                f"{name} is {found}, expected a sequence of {self.batches}: {type(self).__name__} takes one for each "
                f"of {self.batches} independent batches"
            )
        return list(given)

    def _add_pair(self, pair: list[TaskGradients]) -> None:
        """Adds the gradients of earlier micro-batches; the heads' are not wanted."""
        for gradients in pair:
            gradients.heads = None
        for gradients, earlier in zip(pair, self._pair, strict=False):
            gradients.add_earlier(earlier)
        self._pair = pair

    def _judge(self, gram: Tensor, losses: TaskLosses) -> Tensor:
        """Judges all three batches by the sum of their squared norms."""
        assert self._products is not None
        return super()._judge(gram + self._products.diagonal().reshape(2, -1).sum(0).diag(), losses)

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        assert self._products is not None
        num_tasks = len(self.weights)
        updated = self.updated(self._products[:num_tasks, num_tasks:])
        self.weights.copy_(torch.where(usable == 1, updated, self.weights))
        weights = self.reduction_factor(num_tasks) * self.applied(self.weights)
        weights = torch.where(usable == 1, weights, usable)
        gradients.combine(weights)
        return weights


def _products(pair: Sequence[TaskGradients]) -> Tensor:
    """The Gram matrix [2 K, 2 K] of two batches' gradients, unscaled."""
    tensors = [
        grad.sum(0) if isinstance(gradients, FeatureGradients) and grad.numel() > 0 else grad
        for gradients in pair
        for grad in gradients.tensors
    ]
    losses = pair[0].losses
    return losses.unscaled(ops.gram(tensors, len(pair) * len(losses)))
