"""What a data set offers: tasks, and splits that give batches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mtl_ext.metrics import Metric


@dataclass(frozen=True)
class Task:
    """One task of a data set: everything that a model and a trainer need to know about it.

    Attributes:
        name: identifier, unique in the data set; the key of its target, head, loss and measures.
        kind: what the head has to give: ``"classes"`` [B, outputs], ``"pixels"`` [B, outputs, H, W] or
            ``"values"`` [B, outputs].
        outputs: number of classes or values.
        loss: (output, target) -> scalar, the mean over the batch.
        metrics: makers of the metrics; each call gives a fresh accumulator.
    """

    name: str
    kind: str
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: tuple[Callable[[], Metric], ...]


class Batch(NamedTuple):
    """Inputs [B, ...] and the targets of every task, each [B, ...]."""

    inputs: Tensor
    targets: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return Batch(self.inputs.to(device), {name: target.to(device) for name, target in self.targets.items()})


class Split(Protocol):
    """A part of a data set: the training or the test samples."""

    def __len__(self) -> int:
        """Number of samples."""

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the samples: shuffled by the generator, or in order without one. The last may be smaller."""


@dataclass(frozen=True)
class MemorySplit:
    """A split held in memory: inputs [M, ...] and targets [M, ...] of M samples."""

    inputs: Tensor
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the samples: shuffled by the generator, or in order without one. The last may be smaller."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for start in range(0, len(self), batch_size):
            index = order[start : start + batch_size]
            yield Batch(self.inputs[index], {name: target[index] for name, target in self.targets.items()})


@dataclass(frozen=True)
class MultiTaskData:
    """A data set: its tasks, in order, and its splits."""

    tasks: tuple[Task, ...]
    train: Split
    test: Split
