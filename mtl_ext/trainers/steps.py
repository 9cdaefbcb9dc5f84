"""One training step: batches -> losses -> the method's gradients -> optimizer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mtl_ext.data import Batch
from mtl_ext.trainers.build import Parts
from mtl_ext.trainers.forward import Forward, kept_buffers

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
        self.forward = Forward(parts)

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
        self.parts.optimizer.zero_grad()
        if len(group) == 1:
            values, weights = self._backward(group[0])
        elif self.parts.config.accumulate_by == "tasks":
            values, weights = self._sum_of_tasks(group)
        else:
            values, weights = self._mean_of_combinations(group)
        self._update()
        if self.parts.method.second_look:
            with torch.no_grad(), kept_buffers(self.parts.model):
                self.parts.method.look_again(self.forward.losses(group[-1][-1].to(self.parts.device))[1])
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
        several = [self.forward.losses(batch.to(parts.device)) for batch in draw]
        features, losses = several[-1]
        values = self._checked_values(losses)
        shared = parts.model.shared_parameters()
        if parts.monitor is not None and combine:
            parts.monitor.observe(losses, shared, features, scaler=parts.scaler)
        if shares is not None:
            several = [(features, _scaled(losses, shares)) for features, losses in several]
        one = parts.method.batches == 1
        all_losses: Any = several[0][1] if one else [losses for _, losses in several]
        if parts.config.level == "feature":
            all_features: Any = features if one else [features for features, _ in several]
            weights = parts.method.backward(all_losses, features=all_features, scaler=parts.scaler)
        else:
            weights = parts.method.backward(all_losses, shared=shared, scaler=parts.scaler, combine=combine)
        return values, weights

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
        return [len(batch.targets[task.name]) for task in self.parts.tasks]

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


def _scaled(losses: Mapping[str, Tensor], shares: Sequence[float]) -> dict[str, Tensor]:
    return {name: share * loss for (name, loss), share in zip(losses.items(), shares, strict=True)}
