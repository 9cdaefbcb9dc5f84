"""What comes out of a run."""

from dataclasses import asdict, dataclass, field
from typing import Any

from mtl_ext.trainers.config import TrainConfig

Measures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class StepRecord:
    """What one step gave.

    Attributes:
        step: counted from 1 over the whole run.
        total: steps of the whole run.
        epoch: counted from 1.
        losses: task -> loss before the step, mean over its samples.
        weights: task -> the method's weight.
        logged: what else the method says of the step; only of steps that are logged.
    """

    step: int
    total: int
    epoch: int
    losses: dict[str, float]
    weights: dict[str, float]
    logged: dict[str, float] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """One line of the table of steps."""
        row: dict[str, Any] = {"step": self.step, "epoch": self.epoch}
        row |= {f"loss/{task}": value for task, value in self.losses.items()}
        return row | {f"weight/{task}": value for task, value in self.weights.items()} | self.logged


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave.

    Attributes:
        epoch: counted from 1.
        losses: task -> mean over the epoch's steps.
        weights: task -> mean over the epoch's steps.
        lr: learning rate of the model's parameters in the last step.
        measures: task -> metric -> value on the test split after the epoch; empty where it was not evaluated.
        val: the same on the validation split; empty where there is none.
    """

    epoch: int
    losses: dict[str, float]
    weights: dict[str, float]
    lr: float
    measures: Measures
    val: Measures

    def row(self) -> dict[str, Any]:
        """One line of the table of epochs: loss and weight of each task, then its measures."""
        row: dict[str, Any] = {"epoch": self.epoch, "lr": self.lr}
        row |= {f"loss/{task}": value for task, value in self.losses.items()}
        row |= {f"weight/{task}": value for task, value in self.weights.items()}
        for prefix, measures in (("val/", self.val), ("", self.measures)):
            for task, metrics in measures.items():
                row |= {f"{prefix}{task}/{metric}": value for metric, value in metrics.items()}
        return row


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        config: the run's description.
        samples: number of samples of each split: train (without what is held out), val (0: none) and test.
        epochs: one record per epoch.
        selected_epoch: the epoch that `select` chose, whose network and measures are the result.
        selected_on_test: whether it was chosen by the very measures that are reported, which flatters them.
        baseline: the measures that Delta_MTL refers to; empty where `select` does not ask for it.
        stopped_early: whether early_stop ended the run.
        similarity: the monitor's records (see :class:`mtl_ext.monitors.SimilarityMonitor`).
        step_seconds: median wall-clock time of the last 1000 steps; NaN where a resumed run had none left to do.
    """

    config: TrainConfig
    samples: dict[str, int]
    epochs: list[EpochRecord]
    selected_epoch: int
    selected_on_test: bool
    baseline: Measures
    stopped_early: bool
    similarity: list[dict[str, float]]
    step_seconds: float

    @property
    def selected(self) -> EpochRecord:
        """The record of the selected epoch."""
        return self.epochs[self.selected_epoch - 1]

    @property
    def measures(self) -> Measures:
        """Task -> metric -> value on the test split after the selected epoch."""
        return self.selected.measures

    def mean_similarity(self, name: str) -> float:
        """Mean over the run of one of the monitor's measures; NaN where nothing was measured."""
        values = [record[name] for record in self.similarity]
        return sum(values) / len(values) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, for JSON."""
        return asdict(self)
