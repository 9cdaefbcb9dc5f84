"""Look-ahead losses: what a step on one task's loss does to the others' losses."""

import math
import statistics
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from mtl_ext.bilevel import losses_at, trainable_parameters
from mtl_ext.bilevel.meta_data import meta_batches
from mtl_ext.data import Batch
from mtl_ext.losses import TaskLosses, loss_values
from mtl_ext.methods.base import check_range
from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.task_names import self_auxiliary_name
from mtl_ext.trainers import StepRecord, Trainer

SPLITS = ("train", "val")


class LookAhead:
    """Measures, every n steps of a run, ``1 - L_t(params - lr dL_s) / L_t(params)`` for every pair of tasks s, t.

    The step is taken on a training batch; losses are those of the same batch, and of a validation batch. All batches
    have an order of their own, so that training is the same bits with and without. The model and its statistics stay
    as they are, see `mtl_ext.bilevel.losses_at`. Call it after every step: ``trainer.fit(on_step=look_ahead)``.

    A measurement costs a forward pass and a backward pass per task on the training batch, and a forward pass per task
    on either batch.

    Args:
        trainer: the run; its data have a validation split.
        every: steps between two measurements; the first step is measured.

    Raises:
        ValueError: ``every`` is below 1, or there is no validation split.
    """

    def __init__(self, trainer: Trainer, every: int = 10) -> None:
        check_range("every", every, 1)
        data = trainer.parts.data
        if data.val is None:
            raise ValueError("look-ahead on validation data needs a validation split: set holdout, for example to 0.1")
        self.trainer = trainer
        self.every = every
        size, seed = trainer.config.batch_size, trainer.config.seed
        self._batches: dict[str, Iterator[Batch]] = {
            split: meta_batches(samples, size, torch.Generator().manual_seed(seed))
            for split, samples in zip(SPLITS, (data.train, data.val), strict=True)
        }
        self._gains: dict[str, list[Tensor]] = {split: [] for split in SPLITS}

    def __call__(self, record: StepRecord) -> None:
        """Measures where it is due."""
        if (record.step - 1) % self.every == 0:
            for split, gains in self._measure().items():
                self._gains[split].append(gains)

    def relationships(self, split: str) -> dict[str, float]:
        """The medians so far, positive where the source's step lowers the target's loss; NaN before there are any.

        Args:
            split: ``"train"`` or ``"val"``.
        """
        tasks = [task.name for task in self.trainer.parts.tasks]
        medians = {}
        for source, target in all_pairs(tasks):
            s, t = tasks.index(source), tasks.index(target)
            values = [float(gains[s, t]) for gains in self._gains[split]]
            # A loss of 0 has no relative change.
            finite = [value for value in values if math.isfinite(value)]
            medians[self_auxiliary_name(source, target)] = statistics.median(finite) if finite else math.nan
        return medians

    def _measure(self) -> dict[str, Tensor]:
        """Split -> [K, K] float64, by source and target."""
        parts, forward = self.trainer.parts, self.trainer.step.forward
        model, lr = parts.model, parts.optimizer.param_groups[0]["lr"]
        params = trainable_parameters(model)
        losses_on = {}
        for split, batches in self._batches.items():
            batch = next(batches).to(parts.device)
            losses_on[split] = partial(lambda batch: forward.losses(batch).losses, batch)
        losses = TaskLosses(losses_at(losses_on["train"], model, params))
        with torch.no_grad():
            before = {"train": losses.values, "val": loss_values(losses_at(losses_on["val"], model, params))}
        rows: dict[str, list[Tensor]] = {split: [] for split in SPLITS}
        for loss in losses.tensors:
            grads = torch.autograd.grad(loss, list(params.values()), retain_graph=True, allow_unused=True)
            with torch.no_grad():
                moved = {
                    key: param if grad is None else param - lr * grad
                    for (key, param), grad in zip(params.items(), grads, strict=True)
                }
                for split, function in losses_on.items():
                    rows[split].append(1 - loss_values(losses_at(function, model, moved)) / before[split])
        return {split: torch.stack(values).cpu() for split, values in rows.items()}
