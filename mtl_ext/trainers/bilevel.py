"""The step of methods that look ahead: a batch of meta data comes with every step."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ext.bilevel.meta_data import meta_batches
from mtl_ext.data import Batch
from mtl_ext.trainers.build import Parts
from mtl_ext.trainers.forward import Forward
from mtl_ext.trainers.steps import Draw, Step


class BilevelStep(Step):
    """Lets the method look ahead before every step, on the step's batches and on one of meta data.

    With a method's `shared_step` it is after the backward pass, by the gradients of the step. The meta losses are those
    of the tasks that are measured in the end: self-auxiliary tasks do not run there.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        deployed = parts.model.deployed()
        self.meta_forward = self.forward if deployed is parts.model else Forward(parts, deployed)
        if parts.method.shared_step and parts.scaler is not None:
            raise ValueError("shared_step goes by the gradients as they are, which float16 scales: take bfloat16")

    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Any]:
        """The draws of each step and its meta batch, see :meth:`Step.batches`."""
        parts = self.parts
        assert parts.meta is not None
        meta_order = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=order)))
        meta = meta_batches(parts.meta, parts.config.batch_size, meta_order, skip)
        return zip(super().batches(order, skip), meta, strict=False)  # meta batches have no end

    def __call__(self, item: tuple[Sequence[Draw], Batch]) -> tuple[list[float], Tensor]:  # type: ignore[override]
        """One step of the method's weights and one of the optimizer, see :meth:`Step.__call__`."""
        group, meta_batch = item
        meta_batch = meta_batch.to(self.parts.device)
        self._look_ahead = functools.partial(
            self.parts.method.update_weights,
            lambda: self._mean_losses(group),
            lambda: self.meta_forward.losses(meta_batch).losses,
            self.parts.model,
            self.parts.optimizer,
        )
        if not self.parts.method.shared_step:
            self._look_ahead()
        return super().__call__(group)

    def _update(self) -> None:
        """The optimizer's step, after the look-ahead where that shares its gradient."""
        if self.parts.method.shared_step:
            self._look_ahead()
        super()._update()
