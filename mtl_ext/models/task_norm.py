"""Hard sharing with batch normalisation per task, for tasks with inputs of different domains."""

from collections.abc import Mapping
from copy import deepcopy

from torch import Tensor, nn
from torch.nn import Parameter

from mtl_ext.data import Inputs
from mtl_ext.models.architecture import HardSharing, check_own_inputs, check_sides


class TaskNorm(nn.Module):
    """One normalisation layer per task: statistics, scale and shift of its own.

    Args:
        norm: the layer to copy for every task.
        tasks: names of the tasks.
    """

    def __init__(self, norm: nn.Module, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({task: deepcopy(norm) for task in tasks})

    def forward(self, x: Tensor, task: str) -> Tensor:
        """The input as a task normalises it."""
        out: Tensor = self.norms[task](x)
        return out


class TaskNormSharing(HardSharing):
    """Hard sharing of all but the normalisation layers, of which every task has its own.

    A task's scales and shifts stand before the features and belong to the task: each task needs its own pass, and
    its own input.

    Args:
        encoder: layers to be run in turn; a batch normalisation among them is copied for every task.
        heads: see `HardSharing`.
        multiple: see `HardSharing`.
    """

    encoder: nn.Sequential

    def __init__(self, encoder: nn.Sequential, heads: Mapping[str, nn.Module], multiple: int = 1) -> None:
        super().__init__(encoder, heads, multiple)
        layers = [TaskNorm(layer, self.tasks) if isinstance(layer, nn.BatchNorm2d) else layer for layer in encoder]
        self.encoder = nn.Sequential(*layers)

    def _norms(self) -> list[TaskNorm]:
        return [layer for layer in self.encoder if isinstance(layer, TaskNorm)]

    def shared_parameters(self) -> list[Parameter]:
        """The encoder's parameters without the tasks' normalisation."""
        own = {id(param) for norm in self._norms() for param in norm.parameters()}
        return [param for param in self.encoder.parameters() if id(param) not in own]

    def task_parameters(self, task: str) -> list[Parameter]:
        """The parameters of a task's head and normalisation."""
        norms = [param for norm in self._norms() for param in norm.norms[task].parameters()]
        return [*super().task_parameters(task), *norms]

    def features(self, inputs: Inputs) -> dict[str, Tensor]:
        """Task -> the features of its inputs, normalised for it.

        Raises:
            ValueError: one batch for all tasks; inputs that are not those of all tasks; sides that are no multiples.
        """
        if not isinstance(inputs, Mapping):
            raise ValueError(
                "inputs is one batch for all tasks, expected a mapping from task to inputs: this network normalises "
                "every task's own inputs (task_norm=False shares the normalisation)"
            )
        check_own_inputs(inputs, self.tasks)
        return {task: self._encode_for(task, inputs[task]) for task in self.tasks}

    def _encode_for(self, task: str, x: Tensor) -> Tensor:
        check_sides(x, self.multiple)
        for layer in self.encoder:
            x = layer(x, task) if isinstance(layer, TaskNorm) else layer(x)
        return x
