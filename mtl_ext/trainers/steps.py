"""One training step: batches -> losses -> the method's gradients -> optimizer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mtl_ext.data import Batch
from mtl_ext.trainers.build import Parts
from mtl_ext.trainers.forward import Forward, Pass, kept_buffers

Draw = Sequence[Batch]
"""What one call of the method needs: as many independent batches as it declares, nearly always one."""


class Step:
    """The step of every method that is one call of `Method.backward`: on one batch or several, own inputs or not.

    The loop asks for the batches of an epoch and calls the step with each item, without looking into it: a step of
    another shape (bilevel, with a validation batch in every item) is another class with these two methods.

    Args:
        parts: of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.forward = Forward(parts, parts.model)

    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Sequence[Draw]]:
        """What the steps of one epoch get, in turn: `accumulate` draws each, the last step perhaps fewer.

        Args:
            order: generator of the order of the samples and of their augmentation.
            skip: steps to leave out at the start.
        """
        config, train = self.parts.config, self.parts.data.train
        skipped = skip * config.accumulate
        passes = [train.batches(config.batch_size, order, skipped) for _ in range(self.parts.method.batches)]
        draws = zip(*passes, strict=True)
        while group := list(islice(draws, config.accumulate)):
            yield group

    def __call__(self, group: Sequence[Draw]) -> tuple[list[float], Tensor]:
        """One step of the optimizer.

        Args:
            group: the step's draws, on any device.

        Returns:
            The K losses before the step (of a draw of several batches the last one's) and the method's weights [K]
            float64, both as means over the samples.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        parts = self.parts
        with nullcontext() if parts.sam is None else parts.sam.ascended(lambda: self._mean_losses(group)):
            parts.optimizer.zero_grad()
            if len(group) == 1:
                values, weights = self._backward(group[0])
            elif parts.config.accumulate_by == "tasks":
                values, weights = self._sum_of_tasks(group)
            else:
                values, weights = self._mean_of_combinations(group)
        self._update()
        if parts.method.second_look:
            with torch.no_grad(), kept_buffers(parts.model):
                parts.method.look_again(self.forward.losses(group[-1][-1].to(parts.device)).losses)
        return values.tolist(), weights.cpu()

    def _sum_of_tasks(self, group: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """Sums each task's gradients over the draws, weighted by samples, before the method sees them."""
        shares = self._shares(group)
        values = torch.zeros(len(self.parts.tasks), dtype=torch.float64)
        for draw, share in zip(group, shares, strict=True):
            found, weights = self._backward(draw, share.tolist(), combine=draw is group[-1])
            values += share * found
        return values, weights

    def _mean_of_combinations(self, group: Sequence[Draw]) -> tuple[Tensor, Tensor]:
        """Keeps ``.grad`` as the samples' mean over the combinations so far."""
        values, weights, seen = torch.zeros(()), torch.zeros(()), 0
        for draw in group:
            count = sum(self._samples(draw[-1]))
            self._scale_gradients(seen / count)  # the draw's own combination joins with weight 1
            found, found_weights = self._backward(draw)
            share = count / (seen + count)
            self._scale_gradients(share)
            values, weights = (1 - share) * values + share * found, (1 - share) * weights + share * found_weights
            seen += count
        return values, weights

    def _backward(
        self, draw: Draw, shares: Sequence[float] | None = None, combine: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Forward passes, and the method's gradients into ``.grad``; the losses [K] float64 and the weights."""
        parts = self.parts
        batches = [batch.to(parts.device) for batch in draw]
        several = [self.forward.losses(batch) for batch in batches]
        last = several[-1]
        values = self._checked_values(last.losses)
        shared = parts.model.shared_parameters()
        if parts.monitor is not None and combine:
            parts.monitor.observe(last.losses, shared, last.features, scaler=parts.scaler)
        reference = self._summed_norm(last.losses, shared) if parts.config.normalise else None
        factors = dict(zip(last.losses, [1.0] * len(last.losses) if shares is None else shares, strict=True))
        penalties: Any = [self._penalties(found, batch, factors) for found, batch in zip(several, batches, strict=True)]
        losses: Any = [_scaled(found.losses, factors) if shares is not None else found.losses for found in several]
        features: Any = [found.features for found in several]
        if parts.method.batches == 1:
            losses, features, penalties = losses[0], features[0], penalties[0]
        how = {"penalties": penalties, "scaler": parts.scaler}
        if parts.config.level == "feature":
            weights = parts.method.backward(losses, features=features, **how)
        else:
            weights = parts.method.backward(losses, shared=shared, combine=combine, **how)
        if parts.monitor is not None and combine and parts.config.accumulate == 1:
            parts.monitor.observe_combined(shared, scaler=parts.scaler)
        if reference is not None:
            _rescale(shared, reference)
        return values, weights

    def _penalties(self, found: Pass, batch: Batch, factors: Mapping[str, float]) -> list[Any]:
        """What joins the tasks' gradients of a batch."""
        penalty = self.parts.penalty
        return [] if penalty is None else [penalty(found.head_inputs, batch.targets, factors)]

    def _summed_norm(self, losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> Tensor:
        """Norm of the gradient of the sum of the losses at the shared parameters, with the scaler's scale."""
        total = torch.stack(list(losses.values())).sum()
        total = total if self.parts.scaler is None else self.parts.scaler.scale(total)
        grads = torch.autograd.grad(total, list(shared), retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.nn.utils.get_total_norm(grads)

    def _mean_losses(self, group: Sequence[Draw]) -> dict[str, Tensor]:
        """Each task's loss as a mean over the samples of all of the step's batches."""
        shares = self._shares(group)
        found = [self.forward.losses(draw[-1].to(self.parts.device)).losses for draw in group]
        if len(found) == 1:
            return found[0]
        return {
            name: torch.stack(
                [share * losses[name] for losses, share in zip(found, column.tolist(), strict=True)]
            ).sum()
            for name, column in zip(found[0], shares.T, strict=True)
        }

    def _update(self) -> None:
        """Shortens the gradients where that is asked for, and steps."""
        optimizer, scaler, clip_norm = self.parts.optimizer, self.parts.scaler, self.parts.config.clip_norm
        if clip_norm is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(self.parts.model.parameters(), clip_norm)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()

    def _shares(self, group: Sequence[Draw]) -> Tensor:
        """Each draw's share of the step's samples of each task, [draws, K] float64."""
        counts = torch.tensor([self._samples(draw[-1]) for draw in group], dtype=torch.float64)
        return counts / counts.sum(0)

    def _samples(self, batch: Batch) -> list[int]:
        """Number of samples of each task [K]."""
        return [len(batch.targets[task.source]) for task in self.parts.tasks]

    def _scale_gradients(self, factor: float) -> None:
        groups = self.parts.optimizer.param_groups
        grads = [param.grad for group in groups for param in group["params"] if param.grad is not None]
        if grads:
            torch._foreach_mul_(grads, factor)

    def _checked_values(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses [K] float64 on the CPU; a method that deals with what is not finite itself may see it."""
        values = torch.stack([loss.detach().double() for loss in losses.values()]).cpu()
        if self.parts.method.nonfinite == "raise":
            for name, value in zip(losses, values.tolist(), strict=True):
                if not math.isfinite(value):
                    hint = "lower lr, or check the data of this task"
                    raise FloatingPointError(f"the loss of task {name!r} is {value}: {hint}")
        return values


def _scaled(losses: Mapping[str, Tensor], factors: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: factors[name] * loss for name, loss in losses.items()}


def _rescale(params: Sequence[Tensor], norm: Tensor) -> None:
    """Brings the gradients of some parameters, together, to a norm; gradients of 0 stay."""
    grads = [param.grad for param in params if param.grad is not None]
    found = torch.nn.utils.get_total_norm(grads)
    if found > 0:
        torch._foreach_mul_(grads, (norm / found).to(grads[0].dtype))
