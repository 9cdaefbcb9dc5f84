"""Where a multi-task network ends being shared."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import Parameter


class HardSharing(nn.Module):
    """One encoder for all tasks and one head per task; with a single task, the single-task network.

    Args:
        encoder: inputs [B, ...] -> features z [B, ...], which every head reads.
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

    def features(self, inputs: Tensor) -> Tensor:
        """The shared representation z that the heads read."""
        features: Tensor = self.encoder(inputs)
        return features

    def outputs(self, features: Tensor) -> dict[str, Tensor]:
        """Task -> output, from the shared representation."""
        return {task: head(features) for task, head in self.heads.items()}

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Task -> output."""
        return self.outputs(self.features(inputs))
