"""What IAL's logs say about training: encoder weights, uncertainties, norms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtl_ext.studies.ial.outcomes import Outcomes, Steps
from mtl_ext.studies.ial.protocol import OURS, row_name


@dataclass(frozen=True)
class Presence:
    """How far an auxiliary task took part in training the encoder, over seeds.

    Attributes:
        task: the auxiliary task.
        primary: the primary task.
        share: of the logged steps in which its weight was above 0.
        first: share of the run at which the weight was first 0; 1 where it never was.
        mean: of f(sigma) over the run.
        largest: of f(sigma) over the run.
        sigma: at the end.
        loss: mean of the last tenth of the run.
    """

    task: str
    primary: str
    share: float
    first: float
    mean: float
    largest: float
    sigma: float
    loss: float


def encoder_weight(sigma: np.ndarray) -> np.ndarray:
    """Eq. 9 of the paper: f(sigma) = min(1, relu(1 - sigma))."""
    weights: np.ndarray = np.clip(1 - sigma, 0.0, 1.0)
    return weights


def presences(outcomes: Outcomes, name: str = OURS) -> list[Presence]:
    """Every auxiliary task under IAL, with each primary task."""
    found = []
    for primary in outcomes.primary:
        logs = [outcomes.log(row_name(name, primary), seed) for seed in outcomes.seeds(name, tasks=[primary])]
        tasks = [column.removeprefix("sigma/") for column in logs[0] if column.startswith("sigma/")]
        found += [_presence(task, primary, logs) for task in tasks if task != primary]
    return found


def mean_curve(outcomes: Outcomes, row: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and a column of the log, as a mean over the seeds of a run."""
    logs = [outcomes.log(row, seed) for seed in sorted(outcomes.runs[row])]
    return logs[0]["step"], np.mean([log[column] for log in logs], axis=0)


def _presence(task: str, primary: str, logs: Sequence[Steps]) -> Presence:
    weights = [encoder_weight(log[f"sigma/{task}"]) for log in logs]
    absent = [np.flatnonzero(weight == 0) for weight in weights]
    return Presence(
        task,
        primary,
        float(np.mean([(weight > 0).mean() for weight in weights])),
        float(np.mean([zeros[0] / len(w) if len(zeros) else 1.0 for zeros, w in zip(absent, weights, strict=True)])),
        float(np.mean([weight.mean() for weight in weights])),
        float(max(weight.max() for weight in weights)),
        float(np.mean([log[f"sigma/{task}"][-1] for log in logs])),
        float(np.mean([log[f"loss/{task}"][-max(1, len(log["step"]) // 10) :].mean() for log in logs])),
    )
