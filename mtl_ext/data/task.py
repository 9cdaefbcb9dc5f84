"""What a data set offers: tasks, and splits that give batches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
        metrics: makers of the metrics; each call gives a fresh accumulator. A task without any is trained and not
            measured.
        trained_on: the task whose inputs and targets it is trained on; None: its own.
    """

    name: str
    kind: str
    outputs: int
    loss: Callable[[Tensor, Tensor], Tensor]
    metrics: tuple[Callable[[], Metric], ...]
    trained_on: str | None = None

    @property
    def source(self) -> str:
        """The key of its targets, and of its inputs where tasks have inputs of their own."""
        return self.name if self.trained_on is None else self.trained_on


Inputs = Tensor | Mapping[str, Tensor]


class Batch(NamedTuple):
    """Inputs [B, ...] and the targets of every task, each [B, ...].

    Tasks with their own inputs (images of a domain each) have a mapping from task to inputs instead of one tensor.
    """

    inputs: Inputs
    targets: Mapping[str, Tensor]

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        inputs = self.inputs
        moved = inputs.to(device) if isinstance(inputs, Tensor) else {k: v.to(device) for k, v in inputs.items()}
        return Batch(moved, {name: target.to(device) for name, target in self.targets.items()})


class Split(Protocol):
    """A part of a data set: the training or the test samples."""

    def __len__(self) -> int:
        """Number of samples."""

    def batches(self, batch_size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """One pass over the samples, of ceil(len / batch_size) batches, the last of which may be smaller.

        Everything random in a pass (order, augmentation) is drawn from the generator before the first batch is made,
        and a sample's augmentation does not depend on the batches before it: a pass that starts at batch `skip` gives
        the same batches from there on. That is how an interrupted run resumes.

        Args:
            batch_size: samples per batch.
            generator: of the order and of the augmentation; without one, samples come in order and as they are.
            skip: batches to leave out at the start, without loading them.
        """


@dataclass(frozen=True)
class MemorySplit:
    """A split held in memory: inputs [M, ...] and targets [M, ...] of M samples."""

    inputs: Tensor
    targets: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(self, batch_size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """One pass over the samples, see :meth:`Split.batches`."""
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        return map(self.batch, chunks(order, batch_size, skip))

    def batch(self, index: Tensor) -> Batch:
        """The samples of an index [B] int64."""
        return Batch(self.inputs[index], {name: target[index] for name, target in self.targets.items()})

    def divide(self, share: float, generator: torch.Generator) -> tuple["MemorySplit", "MemorySplit"]:
        """Two splits without a common sample, see :class:`mtl_ext.data.holdout.DivisibleSplit`."""
        rest, held = (
            replace(self, inputs=self.inputs[index], targets={k: target[index] for k, target in self.targets.items()})
            for index in divided(len(self), share, generator)
        )
        return rest, held


def chunks(order: Tensor, batch_size: int, skip: int = 0) -> list[Tensor]:
    """A pass's order [M] cut into batches, without the first `skip` of them."""
    return [order[start : start + batch_size] for start in range(skip * batch_size, len(order), batch_size)]


def divided(count: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The indices of `count` samples in two random parts, each in ascending order: the rest, and `share` of them.

    Raises:
        ValueError: one of the two would be empty.
    """
    held = round(share * count)
    if not 0 < held < count:
        raise ValueError(f"holdout is {share} of {count} samples, expected a share that leaves both parts some")
    order = torch.randperm(count, generator=generator)
    return order[held:].sort().values, order[:held].sort().values


@dataclass(frozen=True)
class MultiTaskData:
    """A data set: its tasks, in order, and its splits; `val` where the data set has a validation split of its own."""

    tasks: tuple[Task, ...]
    train: Split
    test: Split
    val: Split | None = None
