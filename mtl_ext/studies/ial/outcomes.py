"""What the runs of the IAL study gave, by row of the paper's tables and seed."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtl_ext.studies.changes import Column, relative_change
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.ial.protocol import SINGLE, row_name
from mtl_ext.studies.runs import RunRecord, StudyRun
from mtl_ext.studies.spread import Spread, spread
from mtl_ext.trainers import Measures, TrainConfig

# A run's steps.csv: column -> values [steps]; NaN where a step has none.
Steps = Mapping[str, np.ndarray]
# Differences of Delta_MTL within this are none.
SAME = 0.005


class Outcomes:
    """One data set's runs. In the setting Auxiliary a task's value is that of the run in which it is primary.

    Args:
        columns: the metrics; of each task the first counts, as in the paper.
        primary: the tasks that are primary in turn.
        records: experiment -> its runs; rows of different experiments have different names.
        out: the study's folder.

    Attributes:
        columns: task -> its metric, of the tasks that are primary in turn.
        failures: row and seed -> why the run ended early.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        primary: Sequence[str],
        records: Mapping[str, Sequence[RunRecord]],
        out: Path,
    ) -> None:
        self.all_columns = list(columns)
        self.primary = tuple(primary)
        self.records = dict(records)
        self.out = out
        first = {column.task: column for column in reversed(columns)}
        self.columns = {task: first[task] for task in self.primary}
        self.runs: dict[str, dict[int, RunRecord]] = {}
        self.experiment_of: dict[str, str] = {}
        self.failures: dict[tuple[str, int], str] = {}
        for experiment, group in self.records.items():
            for record in group:
                self.experiment_of[record.row] = experiment
                if record.failure is None:
                    self.runs.setdefault(record.row, {})[record.seed] = record
                else:
                    self.failures[record.row, record.seed] = record.failure

    def of_seed(self, seed: int) -> "Outcomes":
        """The same of one seed alone."""
        records = {name: [record for record in group if record.seed == seed] for name, group in self.records.items()}
        return Outcomes(self.all_columns, self.primary, records, self.out)

    def seeds(self, *names: str, tasks: Sequence[str] = ()) -> list[int]:
        """The seeds that all runs of some rows have.

        Args:
            names: rows of the paper's tables.
            tasks: those whose runs are wanted in the setting Auxiliary; none: all.

        Raises:
            NotTestableError: there is none.
        """
        common: set[int] | None = None
        for name in names:
            for row in [name] if name in self.runs else [row_name(name, task) for task in tasks or self.primary]:
                found = set(self.runs.get(row, {}))
                common = found if common is None else common & found
        if not common:
            raise NotTestableError(f"no finished run of {', '.join(names)} with a common seed")
        return sorted(common)

    def has(self, *names: str, tasks: Sequence[str] = ()) -> bool:
        """Whether rows have a seed in common."""
        try:
            return bool(self.seeds(*names, tasks=tasks))
        except NotTestableError:
            return False

    def measures(self, name: str, seed: int, primary: str) -> Measures:
        """Measures of a row's run with a primary task; of the setting Normal, of its only run."""
        return self.runs[name if name in self.runs else row_name(name, primary)][seed].measures

    def value(self, name: str, task: str, primary: str | None = None) -> Spread:
        """A task's metric, where it is primary or where another is."""
        run = primary or task
        seeds = self.seeds(name, tasks=[run])
        return spread([self.measures(name, seed, run)[task][self.columns[task].metric] for seed in seeds])

    def change(self, name: str, task: str, reference: str = SINGLE) -> Spread:
        """Relative change of a task's metric against another row with the same seed, positive where better."""
        return spread(
            [self._change(name, reference, seed, task, task) for seed in self.seeds(name, reference, tasks=[task])]
        )

    def delta(self, name: str, reference: str = SINGLE, without: Sequence[str] = ()) -> Spread:
        """Delta_MTL: the mean change of the primary tasks, but for some."""
        tasks = [task for task in self.primary if task not in without]
        seeds = self.seeds(name, reference)
        return spread([float(np.mean([self._change(name, reference, s, t, t) for t in tasks])) for s in seeds])

    def deltas(self, names: Sequence[str]) -> dict[str, Spread]:
        """Delta_MTL of those of some rows that have finished."""
        return {name: self.delta(name) for name in names if self.has(name, SINGLE)}

    def gain(self, name: str, other: "Outcomes", base: str) -> Spread:
        """Delta_MTL of a row minus that of another outcome's row with the same seed."""
        seeds = [seed for seed in self.seeds(name, SINGLE) if seed in other.seeds(base, SINGLE)]
        if not seeds:
            raise NotTestableError(f"no finished run of {name} and {base} with a common seed")
        pairs = zip(_of(self, name, seeds), _of(other, base, seeds), strict=True)
        return spread([new - old for new, old in pairs])

    def auxiliary_change(self, name: str, reference: str, tasks: Sequence[str] = ()) -> Spread:
        """Mean change of the tasks that are not primary, over the runs with each primary task (or with some)."""
        pairs = [(p, a) for p in tasks or self.primary for a in self.primary if a != p]
        seeds = self.seeds(name, reference, tasks=tasks)
        return spread([float(np.mean([self._change(name, reference, s, p, a) for p, a in pairs])) for s in seeds])

    def log(self, row: str, seed: int) -> Steps:
        """The steps of a run.

        Raises:
            NotTestableError: it has no steps.csv.
        """
        run = StudyRun(row, TrainConfig(seed=seed), self.experiment_of.get(row, ""))
        path = self.out / run.folder / "steps.csv"
        if seed not in self.runs.get(row, {}) or not path.exists():
            raise NotTestableError(f"no log of {row} with seed {seed}")
        return read_steps(path)

    def _change(self, name: str, reference: str, seed: int, primary: str, task: str) -> float:
        new, old = self.measures(name, seed, primary), self.measures(reference, seed, primary)
        return relative_change(new, old, self.columns[task])


@dataclass(frozen=True)
class Evidence:
    """Everything that claims are judged by.

    Attributes:
        plain: Tables I, III and VIII to XI; None where the recipe has no such experiment.
        noisy: Tables IV to VI.
        domains: Table VII.
        times: row of ``plain`` -> time of a step relative to Uniform.
        ablated: the primary task of Table IX.
        broken: the task whose head is frozen in Table X.
    """

    plain: Outcomes | None
    noisy: Outcomes | None
    domains: Outcomes | None
    times: Mapping[str, float]
    ablated: str = ""
    broken: str = ""

    @property
    def parts(self) -> dict[str, Outcomes]:
        """Name -> outcomes, of those that there are."""
        every = {"plain": self.plain, "noisy": self.noisy, "domains": self.domains}
        return {name: part for name, part in every.items() if part is not None}

    def need(self, name: str) -> Outcomes:
        """One of the parts.

        Raises:
            NotTestableError: the recipe does not have it.
        """
        if name not in self.parts:
            raise NotTestableError(f"the experiment {name} is not part of this recipe")
        return self.parts[name]

    @property
    def all_seeds(self) -> list[int]:
        """Every seed of any run."""
        return sorted({seed for part in self.parts.values() for runs in part.runs.values() for seed in runs})

    def by_seed(self) -> list["Evidence"]:
        """The same for each seed alone."""
        found = []
        for seed in self.all_seeds:
            plain, noisy, domains = (
                None if part is None else part.of_seed(seed) for part in (self.plain, self.noisy, self.domains)
            )
            found.append(Evidence(plain, noisy, domains, self.times, self.ablated, self.broken))
        return found


def read_steps(path: Path) -> Steps:
    """The numbers of a steps.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in (rows[0] if rows else {})}


def listed(values: Mapping[str, Spread]) -> str:
    """Names with percentages."""
    return ", ".join(f"{name} {value.percent()}" for name, value in values.items())


def time_ratio(times: Mapping[str, float], name: str, primary: Sequence[str]) -> float | None:
    """Step time of a row relative to Uniform; in the setting Auxiliary the mean over primary tasks."""
    found = [times[row] for row in (name, *(row_name(name, task) for task in primary)) if row in times]
    return float(np.mean(found)) if found else None


def _of(outcomes: Outcomes, name: str, seeds: Sequence[int]) -> list[float]:
    return [outcomes.of_seed(seed).delta(name).mean for seed in seeds]
