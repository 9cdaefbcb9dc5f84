"""Relative changes between runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_ext.metrics import task_changes
from mtl_ext.trainers import Measures


@dataclass(frozen=True)
class Column:
    """A metric of a task, as a column of the tables."""

    task: str
    metric: str
    higher_is_better: bool

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.task} {self.metric}"


def relative_change(measures: Measures, reference: Measures, column: Column) -> float:
    """Of one metric between two runs, positive where better; NaN against 0."""
    value, base = (found[column.task][column.metric] for found in (measures, reference))
    if base == 0:
        return float("nan")
    lower = () if column.higher_is_better else (column.metric,)
    return task_changes({"": {column.metric: value}}, {"": {column.metric: base}}, lower)[""]


def mean_change(measures: Measures, reference: Measures, columns: Sequence[Column]) -> float:
    """Delta_MTL over some columns: the mean over their tasks of the mean change of a task's metrics; NaN against 0."""
    tasks = dict.fromkeys(column.task for column in columns)
    changes = {column: relative_change(measures, reference, column) for column in columns}
    return float(np.mean([np.mean([changes[c] for c in columns if c.task == task]) for task in tasks]))
