"""Where a multi-task network ends being shared."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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

    def head_inputs(self, features: Features) -> dict[str, Any]:
        """Task -> what enters its prediction head."""
        return {task: self.head_features(features, task) for task in self.tasks}

    def outputs(self, features: Features) -> dict[str, Tensor]:
        """Task -> output, from the shared representation."""
        return {task: self.head(task)(z) for task, z in self.head_inputs(features).items()}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Task -> output."""
        return self.outputs(self.features(inputs))

    def deployed(self) -> "Architecture":
        """The network without what serves its training alone: what is evaluated and saved."""
        return self


class HardSharing(Architecture):
    """One encoder for all tasks and one head per task; with a single task, the single-task network.

    Args:
        encoder: inputs [B, ...] -> features z [B, ...], or a tuple of features, which every head reads.
        heads: task -> module from z to the task's output.
        multiple: what the sides of image inputs have to be multiples of, for dense outputs to have the inputs' size.

    Raises:
        ValueError: there is no head, or a task's name cannot be that of a module.
    """

    def __init__(self, encoder: nn.Module, heads: Mapping[str, nn.Module], multiple: int = 1) -> None:
        super().__init__()
        if not heads:
            raise ValueError("heads is empty, expected at least one task")
        self.encoder = encoder
        try:
            self.heads = nn.ModuleDict(heads)
        except KeyError as error:
            raise ValueError(f"heads has a task whose name torch cannot take ({error.args[0]}): rename it") from error
        self.multiple = multiple

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
        """The shared representation z that the heads read.

        Raises:
            ValueError: sides that are no multiples of `multiple`; inputs per task that are not those of all tasks, or
                that the encoder would turn into several features each.
        """
        if not isinstance(inputs, Mapping):
            return self._encode(inputs)
        check_own_inputs(inputs, self.tasks)
        features: dict[str, Tensor] = {}
        for task in self.tasks:
            z = self._encode(inputs[task])
            if not isinstance(z, Tensor):
                raise ValueError(
                    f"inputs of each task's own give {len(z)} features for task {task!r}, expected one tensor: this "
                    "network takes one batch for all tasks"
                )
            features[task] = z
        return features

    def _encode(self, inputs: Tensor) -> Tensor | Sequence[Tensor]:
        check_sides(inputs, self.multiple)
        z: Tensor | Sequence[Tensor] = self.encoder(inputs)
        return z


class Branched(HardSharing):
    """Hard sharing up to the features; from there each task has a branch of its own before its head.

    What enters a head is ``head_features(features, task)``, the output of the task's branch: another decoder of that
    path (a self-auxiliary task, a dummy head; see `mtl_ext.models.fresh_copy`) reads the same tensor.

    Args:
        encoder: see `HardSharing`.
        branches: task -> module from the features to what the head reads.
        heads: task -> module from the branch's output to the task's output.
        multiple: see `HardSharing`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        branches: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        multiple: int = 1,
    ) -> None:
        super().__init__(encoder, heads, multiple)
        self.branches = nn.ModuleDict(branches)

    def task_parameters(self, task: str) -> list[Parameter]:
        """The parameters of a task's branch and head."""
        return [*super().task_parameters(task), *self.branches[task].parameters()]

    def head_features(self, features: Features, task: str) -> Any:
        """The output of a task's branch."""
        return self.branches[task](super().head_features(features, task))


def shares_bottom(model: Architecture) -> bool:
    """Whether one encoder gives all that the heads read, the same for every task: a shared-bottom network."""
    if isinstance(model, Branched):
        return not list(model.branches.parameters())
    return type(model) is HardSharing


def check_own_inputs(inputs: Mapping[str, Tensor], tasks: Sequence[str]) -> None:
    """Checks that a mapping has an input for every task and no other.

    Raises:
        ValueError: naming the tasks of either.
    """
    if set(inputs) != set(tasks):
        raise ValueError(f"inputs are those of the tasks {', '.join(inputs)}, expected {', '.join(tasks)}")


def check_sides(inputs: Tensor, multiple: int) -> None:
    """Checks height and width of images [B, C, H, W].

    Raises:
        ValueError: one is no multiple of `multiple`.
    """
    if multiple > 1 and any(side % multiple for side in inputs.shape[-2:]):
        height, width = inputs.shape[-2:]
        raise ValueError(
            f"inputs are {height} x {width} pixels, expected multiples of {multiple}: pad or crop images and targets"
        )


def tapped(tensor: Tensor) -> Tensor:
    """The same values as a tensor of its own.

    Where a network goes on from `tensor` while heads read the tap, the gradient of a loss at the tap is the part that
    comes through the heads alone; features that are taps do not depend on one another.
    """
    return tensor.view_as(tensor)
