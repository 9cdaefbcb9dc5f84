"""Forward passes: in the configured precision, compiled or not, from one input or from one per task."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch._functorch.config
from torch import Tensor, nn

from mtl_ext.comparators.pta import decoder_outputs
from mtl_ext.data import Batch
from mtl_ext.gradients import Features
from mtl_ext.models import Architecture
from mtl_ext.trainers.build import Parts

LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Pass(NamedTuple):
    """What a forward pass of a batch gives, with its graph.

    Attributes:
        features: the shared representation.
        head_inputs: task -> what its head read.
        losses: task -> loss, in the order of the tasks.
    """

    features: Features
    head_inputs: dict[str, Any]
    losses: dict[str, Tensor]


class Forward:
    """What a batch gives: the tasks' outputs, or features and losses.

    Args:
        parts: of the run.
        model: the run's network, or what of it is evaluated.
    """

    def __init__(self, parts: Parts, model: Architecture) -> None:
        self.parts = parts
        self.model = model
        self.dtype = LOW_PRECISION.get(parts.config.precision)
        self._features: Any = model.features
        self._head_inputs: Any = model.head_inputs
        self._predictions: Any = self._run_heads
        self._decoders: Any = self._run_decoders
        if parts.config.compile:
            # A monitor sends losses back more than once, which graphs that give their buffers away do not survive.
            torch._functorch.config.donated_buffer = False
            # Each for itself, so that what is between them stays tensors of the graph. Sizes are fixed: a resumed
            # run, which may meet an epoch's small last batch first, would get other kernels otherwise.
            options = {"dynamic": False, **parts.config.compile_options}
            for stage in ("_features", "_head_inputs", "_predictions", "_decoders"):
                setattr(self, stage, torch.compile(getattr(self, stage), **options))

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Task -> output, in at least float32, for a batch on the device."""
        with self._autocast():
            outputs: dict[str, Tensor] = self._predictions(self._head_inputs(self._features(self._inputs(batch))))
        return {task: _at_least_single(out) for task, out in outputs.items()}

    def losses(self, batch: Batch) -> Pass:
        """Features and losses of a batch on the device; each task on its own inputs where it has any.

        The tasks are those of the network: without self-auxiliary tasks, where it is the one that is evaluated.

        The loss of a head with several decoders is the mean of theirs.
        """
        with self._autocast():
            features: Features = self._features(self._inputs(batch))
            head_inputs: dict[str, Any] = self._head_inputs(features)
            outputs: dict[str, list[Tensor]] = self._decoders(head_inputs)
        losses = {}
        for task in self.parts.tasks:
            if task.name not in outputs:
                continue
            target = batch.targets[task.source]
            by_decoder = [task.loss(_at_least_single(out), target) for out in outputs[task.name]]
            losses[task.name] = by_decoder[0] if len(by_decoder) == 1 else torch.stack(by_decoder).mean()
        return Pass(features, head_inputs, losses)

    def _inputs(self, batch: Batch) -> Any:
        """The batch's inputs; of inputs per task, those of the tasks that have some."""
        if not isinstance(batch.inputs, Mapping):
            return batch.inputs
        return {source: batch.inputs[source] for source in dict.fromkeys(task.source for task in self.parts.tasks)}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.parts.device.type, self.dtype, enabled=self.dtype is not None)

    def _run_heads(self, head_inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        return {task: self.model.head(task)(z) for task, z in head_inputs.items()}

    def _run_decoders(self, head_inputs: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        return {task: decoder_outputs(self.model.head(task), z) for task, z in head_inputs.items()}


def _at_least_single(out: Tensor) -> Tensor:
    return out.float() if out.dtype in LOW_PRECISION.values() else out


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Undoes what forward passes inside the block do to running statistics and other buffers."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
