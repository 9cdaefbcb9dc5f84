"""Values that a study chooses on held-out data, before the rows that need them are run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtl_ext.studies.changes import Column, mean_change
from mtl_ext.studies.runs import RunRecord
from mtl_ext.studies.spread import Spread, spread
from mtl_ext.trainers import TrainConfig


@dataclass(frozen=True)
class Choice:
    """What is to be chosen.

    Attributes:
        rows: name -> configuration of what is tried, with a validation split; the first is what the others are
            measured against, and may be none of the candidates.
        values: row -> the value that it tries.
        seeds: runs per row.
        metrics: names TASK/METRIC of the metrics that count; empty: all.
    """

    rows: Mapping[str, TrainConfig]
    values: Mapping[str, Any]
    seeds: int
    metrics: Sequence[str] = ()


@dataclass(frozen=True)
class Decision:
    """What was chosen.

    Attributes:
        row: the row that did best.
        value: what it tried.
        scores: row -> Delta_MTL on the validation split against the first row with the same seed; of the seeds that
            ran to the end with both.
    """

    row: str
    value: Any
    scores: Mapping[str, Spread]


def decide(choice: Choice, columns: Sequence[Column], records: Sequence[RunRecord]) -> Decision | None:
    """The candidate with the best mean score; None where runs are missing yet.

    A candidate that failed with one seed or more is out, as is one whose score is not a number; if all are, the first
    candidate is the choice.
    """
    if len(records) < len(choice.rows) * choice.seeds:
        return None
    finished = {(record.row, record.seed): record.val for record in records if record.failure is None}
    first = next(iter(choice.rows))
    scores = {}
    for row in choice.rows:
        seeds = [seed for seed in range(choice.seeds) if (row, seed) in finished and (first, seed) in finished]
        scores[row] = spread([mean_change(finished[row, seed], finished[first, seed], columns) for seed in seeds])
    usable = {row: score for row, score in scores.items() if row in choice.values and _is_usable(score, choice.seeds)}
    best = max(usable, key=lambda row: usable[row].mean) if usable else next(iter(choice.values))
    return Decision(best, choice.values[best], scores)


def _is_usable(score: Spread, seeds: int) -> bool:
    return len(score.values) == seeds and math.isfinite(score.mean)
