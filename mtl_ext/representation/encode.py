"""A split as the frozen encoder sees it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data import Batch, Inputs, Split, Task
from mtl_ext.models import Architecture
from mtl_ext.models.options import check_counts


@dataclass(frozen=True)
class Encoded:
    """One task's samples as vectors.

    Attributes:
        features: [M, C] float32, on the CPU.
        labels: [M] int64, the classes.

    Raises:
        ValueError: shapes or dtypes that do not go together, no sample, or a feature that is not finite.
    """

    features: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Checks the samples."""
        found = f"features {list(self.features.shape)} {self.features.dtype}"
        found += f" and labels {list(self.labels.shape)} {self.labels.dtype}"
        vectors = self.features.dim() == 2 and self.features.is_floating_point()
        if not vectors or self.labels.shape != self.features.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(f"expected features [M, C] of floats and labels [M] int64, found {found}")
        if not len(self.labels):
            raise ValueError(f"expected at least one sample, found {found}")
        if not self.features.isfinite().all():
            raise ValueError("features hold a number that is not finite: the network that gave them has diverged")

    def __len__(self) -> int:
        return len(self.labels)

    def drawn(self, count: int, seed: int = 0) -> "Encoded":
        """So many of the samples, drawn by a seed, in their order; all of them where there are no more."""
        check_counts(count=count)
        index = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count].sort().values
        return Encoded(self.features[index], self.labels[index])


@torch.no_grad()
def encode(
    model: Architecture, tasks: Sequence[Task], split: Split, *, batch_size: int = 64, grid: int = 1
) -> dict[str, Encoded]:
    """What enters the prediction head of every task that names a class per sample, as vectors, without augmentation.

    Split: the one shared representation, for every task the same; branched networks (MTAN, half-shared): the output of
    the task's branch. Features on a grid of pixels are averaged, several of them (a pyramid's) put one after another.

    Dense tasks are left out. Their labels belong to pixels, which one vector per sample does not tell apart, and a
    vector per pixel of the features would measure how many pixels fall into one; DGR tests faces only. So are tasks
    with targets that are no classes: numbers, or a distribution.

    Args:
        model: a trained network; encodes in evaluation mode, and is left in the mode that it was in.
        tasks: of the network.
        split: where the samples come from.
        batch_size: samples per forward pass.
        grid: average features over the cells of a grid x grid partition of the image, instead of over all of it, and
            so keep where they lie; for heads that know it, such as those of `small_conv`.

    Returns:
        Task -> its samples, in the split's order, without those whose label is none of the task's classes.

    Raises:
        ValueError: no task has a class per sample, or a task has no sample with a label.
    """
    check_counts(batch_size=batch_size, grid=grid)
    device = next(model.parameters()).device
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    training = model.training
    model.eval()
    try:
        for batch in split.batches(batch_size):
            for name, part in _encode_batch(model, tasks, batch.to(device), grid).items():
                parts.setdefault(name, []).append(part)
    finally:
        model.train(training)
    if not parts:
        raise ValueError(f"expected a task with a class per sample among {', '.join(task.name for task in tasks)}")
    encoded = {}
    for name, pairs in parts.items():
        features, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
        if not len(labels):
            raise ValueError(f"task {name!r} has no sample with a label in the split")
        encoded[name] = Encoded(features, labels)
    return encoded


def _encode_batch(
    model: Architecture, tasks: Sequence[Task], batch: Batch, grid: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Task -> vectors and labels of a batch."""
    labelled = [task for task in tasks if task.kind == "classes" and _are_classes(batch.targets[task.name])]
    if not labelled:
        return {}
    features = model.features(_filled(batch.inputs, model.tasks))
    encoded = {}
    for task in labelled:
        labels = batch.targets[task.name]
        vectors = _vectors(model.head_features(features, task.name), grid)[: len(labels)]
        valid = (labels >= 0) & (labels < task.outputs)
        encoded[task.name] = vectors[valid].float().cpu(), labels[valid].cpu()
    return encoded


def _are_classes(target: Tensor) -> bool:
    """Whether targets are a class per sample, [B] int64, not a distribution over classes."""
    return target.dtype == torch.int64 and target.dim() == 1


def _filled(inputs: Inputs, tasks: Sequence[str]) -> Inputs:
    """The inputs, with another task's sample where a task's own stream has ended: not every layer takes 0 samples."""
    if not isinstance(inputs, Mapping):
        return inputs
    spare = next(own for own in inputs.values() if len(own))[:1]
    return {task: inputs[task] if len(inputs[task]) else spare for task in tasks}


def _vectors(z: Any, grid: int) -> Tensor:
    """What enters a head -> [B, C]: [B, C] itself, [B, C, h, w] averaged over cells, several one after another."""
    if not isinstance(z, Tensor):
        return torch.cat([_vectors(part, grid) for part in z], dim=1)
    return functional.adaptive_avg_pool2d(z, grid).flatten(1) if z.dim() == 4 else z.flatten(1)
