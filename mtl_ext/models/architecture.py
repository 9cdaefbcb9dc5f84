"""Where a multi-task network ends being shared."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter

from mtl_ext.data import Inputs
from mtl_ext.gradients import Features


class Architecture(nn.Module, ABC):
    """What trainers, methods and penalties ask of a multi-task network.

    ``inputs -> features -> head_features(task) -> head(task)``: the parameters before the features are shared by all
    tasks, everything after them belongs to one task.
    """

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""

    @abstractmethod
    def head(self, task: str) -> nn.Module:
        """The prediction head of a task.

        Raises:
            KeyError: no such task, naming those there are.
        """

    @abstractmethod
    def shared_parameters(self) -> list[Parameter]:
        """The parameters that every task trains: gradient methods act on these."""

    @abstractmethod
    def task_parameters(self, task: str) -> list[Parameter]:
        """The parameters that only this task trains: of its head and of what else stands after the features."""

    @abstractmethod
    def features(self, inputs: Inputs) -> Features:
        """The shared representation, where feature-level methods act: all that the tasks' own parts read.

        None of several tensors may depend on another, so that one backward pass through all of them is right. Tasks
        with their own inputs have a mapping from task to features.
        """

    def head_features(self, features: Features, task: str) -> Any:
        """What enters the prediction head of a task: the features themselves, unless the task has more of its own."""
        return features[task] if isinstance(features, Mapping) else features

    def outputs(self, features: Features) -> dict[str, Tensor]:
        """Task -> output, from the shared representation."""
        return {task: self.head(task)(self.head_features(features, task)) for task in self.tasks}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Task -> output."""
        return self.outputs(self.features(inputs))


class HardSharing(Architecture):
    """One encoder for all tasks and one head per task; with a single task, the single-task network.

    Args:
        encoder: inputs [B, ...] -> features z [B, ...], or a tuple of features, which every head reads.
        heads: task -> module from z to the task's output.
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("heads is empty, expected at least one task")
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, in order."""
        return tuple(self.heads)

    def head(self, task: str) -> nn.Module:
        """The head of a task."""
        if task not in self.heads:
            raise KeyError(f"there is no task {task!r}; the tasks are {', '.join(self.tasks)}")
        return self.heads[task]

    def shared_parameters(self) -> list[Parameter]:
        """The parameters that every task trains."""
        return list(self.encoder.parameters())

    def task_parameters(self, task: str) -> list[Parameter]:
        """The parameters that only this task trains."""
        return list(self.head(task).parameters())

    def features(self, inputs: Inputs) -> Features:
        """The shared representation z that the heads read."""
        if isinstance(inputs, Mapping):
            return {task: self.encoder(value) for task, value in inputs.items()}
        features: Tensor = self.encoder(inputs)
        return features
