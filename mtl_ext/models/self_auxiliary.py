"""Self-auxiliary tasks: other tasks' labels learnt on a task's own path through the network."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn import Parameter

from mtl_ext.data import Inputs, Task
from mtl_ext.gradients import Features
from mtl_ext.models.architecture import Architecture, Branched
from mtl_ext.models.heads import fresh_copy
from mtl_ext.task_names import Pair, self_auxiliary_name


class SelfAuxiliaries(Architecture):
    """A half-shared network with self-auxiliary tasks (Graffeuille et al., SAAL).

    The self-auxiliary ``s->t`` has the inputs, labels and loss of task s, the target's branch, and a decoder of its
    own, with the architecture of the head of s. Its gradients reach the shared part, the branch of t and that decoder,
    and nothing else. Tasks that share their inputs run each branch once, whatever number of decoders read it.

    Args:
        model: the network of the primary tasks; what is left when training has ended.
        pairs: source and target of each self-auxiliary task.

    Attributes:
        model: as given.

    Raises:
        TypeError: a layer of a head has no ``reset_parameters``.
        ValueError: a pair names no tasks, a task and itself, or comes twice.
    """

    def __init__(self, model: Branched, pairs: Sequence[Pair]) -> None:
        super().__init__()
        check_pairs(pairs, model.tasks)
        self.model = model
        self.pairs = {self_auxiliary_name(*pair): pair for pair in pairs}
        self.decoders = nn.ModuleDict({name: fresh_copy(model.head(s)) for name, (s, _) in self.pairs.items()})

    @property
    def tasks(self) -> tuple[str, ...]:
        """The primary tasks, then the self-auxiliary ones."""
        return (*self.model.tasks, *self.pairs)

    def head(self, task: str) -> nn.Module:
        """The head of a primary task, or the decoder of a self-auxiliary one."""
        return self.decoders[task] if task in self.pairs else self.model.head(task)

    def shared_parameters(self) -> list[Parameter]:
        """The parameters that every task trains."""
        return self.model.shared_parameters()

    def task_parameters(self, task: str) -> list[Parameter]:
        """The parameters that only this task trains: a self-auxiliary's decoder; its branch is the target's."""
        return list(self.decoders[task].parameters()) if task in self.pairs else self.model.task_parameters(task)

    def features(self, inputs: Inputs) -> Features:
        """The shared representation, see :class:`HardSharing`; inputs per task are those of the primary tasks."""
        return self.model.features(inputs)

    def head_features(self, features: Features, task: str) -> Any:
        """What enters a head: the output of the target's branch, for the source's inputs."""
        source, target = self.pairs.get(task, (task, task))
        if isinstance(features, Mapping):
            features = {target: features[source]}
        return self.model.head_features(features, target)

    def head_inputs(self, features: Features) -> dict[str, Any]:
        """Task -> what enters its head."""
        if isinstance(features, Mapping):
            return super().head_inputs(features)
        read = self.model.head_inputs(features)
        return read | {name: read[target] for name, (_, target) in self.pairs.items()}

    def deployed(self) -> Architecture:
        """The network of the primary tasks."""
        return self.model


def all_pairs(tasks: Sequence[str]) -> list[Pair]:
    """Every task as a self-auxiliary of every other, target by target."""
    return [(source, target) for target in tasks for source in tasks if source != target]


def self_auxiliary_tasks(tasks: Sequence[Task], pairs: Sequence[Pair]) -> list[Task]:
    """The self-auxiliary tasks of some pairs: the source's loss and labels under another name, not measured."""
    by_name = {task.name: task for task in tasks}
    return [
        replace(by_name[source], name=self_auxiliary_name(source, target), metrics=(), trained_on=source)
        for source, target in pairs
    ]


def check_pairs(pairs: Sequence[Pair], tasks: Sequence[str]) -> None:
    """Checks that pairs are of two different tasks, each once.

    Raises:
        ValueError: naming the pair that is not.
    """
    for source, target in pairs:
        name = self_auxiliary_name(source, target)
        if source not in tasks or target not in tasks:
            raise ValueError(f"self-auxiliary {name!r}: expected two of the tasks {', '.join(tasks)}")
        if source == target or list(pairs).count((source, target)) > 1:
            raise ValueError(f"self-auxiliary {name!r}: expected two different tasks, and each pair once")
