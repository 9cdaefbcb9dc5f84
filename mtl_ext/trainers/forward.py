"""Forward passes: in the configured precision, compiled or not, from one input or from one per task."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor, nn

from mtl_ext.data import Batch
from mtl_ext.gradients import Features
from mtl_ext.trainers.build import Parts

LOW_PRECISION = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Forward:
    """What a batch gives: features, the tasks' outputs, their losses.

    Args:
        parts: of the run.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.dtype = LOW_PRECISION.get(parts.config.precision)
        self._features: Any = parts.model.features
        self._outputs: Any = parts.model.outputs
        if parts.config.compile:
            # A monitor sends losses back more than once, which graphs that give their buffers away do not survive.
            torch._functorch.config.donated_buffer = False
            # Each for itself, so that the features between the two stay tensors of the graph. Sizes are fixed: a
            # resumed run, which may meet an epoch's small last batch first, would get other kernels otherwise.
            options = {"dynamic": False, **parts.config.compile_options}
            self._features = torch.compile(self._features, **options)
            self._outputs = torch.compile(self._outputs, **options)

    def __call__(self, batch: Batch) -> tuple[Features, dict[str, Tensor]]:
        """Features and, in at least float32, the outputs of every task, for a batch on the device."""
        inputs = batch.inputs
        if isinstance(inputs, Mapping):
            inputs = {task.name: inputs[task.name] for task in self.parts.tasks}
        with torch.autocast(self.parts.device.type, self.dtype, enabled=self.dtype is not None):
            features: Features = self._features(inputs)
            outputs: dict[str, Tensor] = self._outputs(features)
        low = LOW_PRECISION.values()
        return features, {task: out.float() if out.dtype in low else out for task, out in outputs.items()}

    def losses(self, batch: Batch) -> tuple[Features, dict[str, Tensor]]:
        """Features, and task -> loss in the order of the tasks, each on its own inputs where it has any."""
        features, outputs = self(batch)
        losses = {task.name: task.loss(outputs[task.name], batch.targets[task.name]) for task in self.parts.tasks}
        return features, losses


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Undoes what forward passes inside the block do to running statistics and other buffers."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
