"""Which epoch is the result of a run, and when waiting for a better one ends."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.metrics import delta_mtl
from mtl_ext.trainers.config import TrainConfig
from mtl_ext.trainers.evaluation import lower_is_better
from mtl_ext.trainers.results import EpochRecord, Measures


class Selection:
    """Keeps the network of the best epoch so far, by the configured rule (see `TrainConfig.select`).

    Of equally good epochs the first counts; a value of NaN is never better.

    Args:
        config: the run's description.
        tasks: the tasks that are trained.

    Attributes:
        epoch: the selected epoch; 0 before the first evaluation.
        model: its ``state_dict`` on the CPU; None where the last epoch is selected.
        baseline: what Delta_MTL refers to.
        waited: evaluations since.

    Raises:
        ValueError: the rule names no task or metric of the data set, or the baseline's file cannot be used.
    """

    def __init__(self, config: TrainConfig, tasks: list[Task]) -> None:
        self.rule = config.select
        self.patience = config.early_stop
        self.lower = lower_is_better(tasks)
        self.by_delta = self.rule in ("best_val_delta", "best_test")
        self.on_test = self.rule == "best_test"
        self.epoch = 0
        self.value = -math.inf
        self.waited = 0
        self.model: dict[str, Tensor] | None = None
        self.baseline: Measures = {}
        names = {task.name: [make().name for make in task.metrics] for task in tasks}
        if self.by_delta and config.baseline is not None:
            self.baseline = read_baseline(config.baseline, names)
        if self.rule != "last" and not self.by_delta:
            self.task, _, self.metric = self.rule.removeprefix("best_val_").partition("/")
            known = [f"{task}/{metric}" for task, metrics in names.items() for metric in metrics]
            if f"{self.task}/{self.metric}" not in known:
                expected = ", ".join(f"best_val_{name}" for name in known)
                raise ValueError(f"select is {self.rule!r}, expected last, best_val_delta, best_test or {expected}")

    @property
    def is_exhausted(self) -> bool:
        """Whether training should end early."""
        return bool(self.patience) and self.waited >= self.patience

    def update(self, record: EpochRecord, model: nn.Module) -> None:
        """Takes an evaluated epoch and the network after it."""
        if self.rule == "last":
            self.epoch = record.epoch
            return
        value = self._value(record)
        self.waited += 1
        if self.epoch == 0 or value > self.value:
            self.epoch, self.waited = record.epoch, 0
            self.value = value if value == value else -math.inf
            self.model = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For a run that is to be resumed."""
        return {name: getattr(self, name) for name in ("epoch", "value", "waited", "model", "baseline")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)

    def _value(self, record: EpochRecord) -> float:
        """What the rule looks at, larger being better."""
        measures = record.measures if self.on_test else record.val
        if self.by_delta:
            self.baseline = self.baseline or measures
            return delta_mtl(measures, self.baseline, self.lower)
        value = measures[self.task][self.metric]
        return -value if self.metric in self.lower else value


def read_baseline(source: Mapping[str, Mapping[str, float]] | str, names: Mapping[str, list[str]]) -> Measures:
    """Single-task measures, task -> metric -> value; other tasks than these are left out.

    Args:
        source: the measures, or the path of a JSON file.
        names: task -> names of its metrics.

    Raises:
        ValueError: naming the file, if it is one, and what is missing, or no number, or 0.
    """
    where = f"baseline {source}" if isinstance(source, str) else "baseline"
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8")) if isinstance(source, str) else source
        measures = {task: {name: float(content[task][name]) for name in metrics} for task, metrics in names.items()}
        delta_mtl(measures, measures)
    except (OSError, KeyError, TypeError, ValueError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{where}: {missing}; expected task -> metric -> value for {dict(names)}") from error
    return measures
