"""Splits whose samples lie in files: loaded, augmented and stacked while the pass goes on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mtl_ext.data.fields import Field, Sample
from mtl_ext.data.task import Batch, chunks, divided

Load = Callable[[str], Sample]
Augment = Callable[[Sample, Mapping[str, Field], torch.Generator], Sample]
Prepare = Callable[[Sample, Mapping[str, Field]], Sample]


@dataclass(frozen=True)
class FolderSplit:
    """A split whose samples lie in files.

    Attributes:
        name: the split's name on disk, such as ``train``.
        ids: M different names of samples, which `load` understands.
        load: reads a sample as it lies on disk: input [C, H, W] and targets.
        fields: how the dense targets follow the input through geometric changes; others stay as they are.
        augment: changes a sample at random; only in passes with a generator.
        prepare: brings every sample, augmented or not, into the form that the network gets.
        workers: threads that load ahead; 0 loads when a batch is asked for. Batches are the same for any number.
    """

    name: str
    ids: Sequence[str]
    load: Load
    fields: Mapping[str, Field] = field(default_factory=dict)
    augment: Augment | None = None
    prepare: Prepare | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be loaded.

        Raises:
            ValueError: no sample, or a negative number of workers.
        """
        if not self.ids:
            raise ValueError(f"the split {self.name!r} has no samples, expected at least one")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}, expected at least 0")

    def __len__(self) -> int:
        return len(self.ids)

    def divide(self, share: float, generator: torch.Generator) -> tuple["FolderSplit", "FolderSplit"]:
        """Two splits without a common sample, see :class:`mtl_ext.data.holdout.DivisibleSplit`."""
        rest, held = (
            replace(self, ids=[self.ids[i] for i in index.tolist()]) for index in divided(len(self), share, generator)
        )
        return rest, held

    def batches(self, batch_size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """One pass over the samples, see :meth:`Split.batches`.

        Raises:
            FileNotFoundError: a file of a sample is missing.
            ValueError: a file of a sample is broken, or samples of a batch differ in shape.
        """
        count = len(self)
        if generator is None:
            order, seeds = torch.arange(count), None
        else:
            order = torch.randperm(count, generator=generator)
            seeds = torch.randint(2**32, (count,), generator=generator)
        return self._pass(chunks(order, batch_size, skip), seeds)

    def sample(self, index: int, seed: int | None = None) -> Sample:
        """One sample as batches hold it, augmented with draws of the seed, or not without one."""
        sample = self.load(self.ids[index])
        if self.augment is not None and seed is not None:
            sample = self.augment(sample, self.fields, torch.Generator().manual_seed(seed))
        return sample if self.prepare is None else self.prepare(sample, self.fields)

    def _pass(self, parts: list[Tensor], seeds: Tensor | None) -> Iterator[Batch]:
        numbers = [index for part in parts for index in part.tolist()]
        samples = self._samples([(index, None if seeds is None else int(seeds[index])) for index in numbers])
        for part in parts:
            yield self._stack(part.tolist(), [next(samples) for _ in part])

    def _samples(self, jobs: Iterable[tuple[int, int | None]]) -> Iterator[Sample]:
        """The samples of (index, seed), in order; with workers, a few are loaded ahead of the one asked for."""
        if not self.workers:
            for job in jobs:
                yield self.sample(*job)
            return
        pending: deque[Future[Sample]] = deque()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="mtl_ext-load")
        try:
            for job in jobs:
                pending.append(pool.submit(self.sample, *job))
                if len(pending) > 2 * self.workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _stack(self, indices: list[int], samples: list[Sample]) -> Batch:
        """B samples as one batch."""
        first, first_targets = samples[0]
        for index, (image, targets) in zip(indices, samples, strict=True):
            for name, found, expected in [("input", image, first)] + [
                (name, targets[name], target) for name, target in first_targets.items()
            ]:
                if found.shape != expected.shape:
                    raise ValueError(
                        f"{self.name}: the {name} of sample {self.ids[index]} has shape {list(found.shape)}, that of "
                        f"sample {self.ids[indices[0]]} {list(expected.shape)}: a batch needs equal shapes"
                    )
        inputs = torch.stack([image for image, _ in samples])
        return Batch(inputs, {name: torch.stack([targets[name] for _, targets in samples]) for name in first_targets})
