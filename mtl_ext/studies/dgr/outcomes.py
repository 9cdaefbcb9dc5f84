"""What the runs of the DGR study gave, by experiment, row and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from mtl_ext.studies.changes import Column, mean_change, relative_change
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.dgr.protocol import Part, added, single, subset_row, subsets
from mtl_ext.studies.dgr.representation import Representation, read_representations
from mtl_ext.studies.runs import RunRecord
from mtl_ext.studies.spread import Spread, spread
from mtl_ext.studies.study import Material
from mtl_ext.trainers import Measures

T = TypeVar("T")
BySeed = Mapping[str, Mapping[int, Measures]]


class PartOutcomes:
    """What one experiment gave. Values over seeds are in the order of the seeds that all rows of a question have.

    Args:
        part: the experiment.
        columns: its metrics.
        runs: row -> seed -> measures, of the runs that ended well.
        singles: the same of the experiment that has the single-task rows.
        representations: row -> seed -> what was measured of its representation.
        step_times: row -> time of a step relative to the reference row.
    """

    def __init__(
        self,
        part: Part,
        columns: Sequence[Column],
        runs: BySeed,
        singles: BySeed,
        representations: Mapping[str, Mapping[int, Representation]],
        step_times: Mapping[str, float],
    ) -> None:
        self.part = part
        self.columns = list(columns)
        self.runs = runs
        self.singles = singles
        self.representations = representations
        self.step_times = step_times

    def of_seed(self, seed: int) -> "PartOutcomes":
        """The same of one seed alone."""
        runs, singles = (_of_seed(group, seed) for group in (self.runs, self.singles))
        representations = _of_seed(self.representations, seed)
        return PartOutcomes(self.part, self.columns, runs, singles, representations, self.step_times)

    def has(self, *rows: str) -> bool:
        """Whether all rows have a seed in common, with the single-task rows of their tasks."""
        return bool(self._common(rows))

    def seeds(self, *rows: str) -> list[int]:
        """The seeds that all rows have, with the single-task rows of their tasks.

        Raises:
            NotTestableError: there is none.
        """
        common = self._common(rows)
        if not common:
            raise NotTestableError(f"{self.part.title}: no finished run of {', '.join(rows)} and of its single tasks")
        return common

    def value(self, row: str, column: Column) -> Spread:
        """A metric; of single-task rows also where they are another experiment's."""
        return spread([measures[column.task][column.metric] for _, measures in sorted(self._runs(row).items())])

    def delta(self, row: str) -> Spread:
        """Delta_MTL of a row: against its tasks, each trained alone with the same seed."""
        return spread([self._delta(row, seed) for seed in self.seeds(row)])

    def gain(self, row: str, base: str) -> Spread:
        """Delta_MTL of a row minus that of another, with the same seed."""
        return spread([self._delta(row, seed) - self._delta(base, seed) for seed in self.seeds(row, base)])

    def change(self, row: str, base: str, column: Column) -> Spread:
        """Relative change of a metric between two rows, positive where better."""
        pairs = [(self._measures(row, seed), self._measures(base, seed)) for seed in self.seeds(row, base)]
        return spread([relative_change(new, old, column) for new, old in pairs])

    def single_change(self, row: str, column: Column) -> Spread:
        """The same against the task trained alone."""
        return self.change(row, single(column.task), column)

    @cached_property
    def pairs(self) -> list[str]:
        """The methods that ran with and without DGR."""
        return [method for method in self.part.methods if self.has(method, added(method))]

    def gains(self) -> dict[str, Spread]:
        """Method -> what DGR adds to its Delta_MTL."""
        return {method: self.gain(added(method), method) for method in self.pairs}

    def subset_delta(self, size: int, dummies: int) -> Spread:
        """Table 4(a): mean Delta_MTL over all choices of so many tasks, with so many dummies; 0: Vanilla."""
        rows = [subset_row(tasks, dummies, self.part.tasks) for tasks in subsets(self.part.tasks) if len(tasks) == size]
        seeds = self.seeds(*rows)
        return spread([float(np.mean([self._delta(row, seed) for row in rows])) for seed in seeds])

    def subset_gain(self, size: int, dummies: int) -> Spread:
        """The same minus that of Vanilla, with the same seed."""
        with_dgr, without = self.subset_delta(size, dummies), self.subset_delta(size, 0)
        if len(with_dgr.values) != len(without.values):
            raise NotTestableError(f"{self.part.title}: runs of {size} tasks are missing")
        return spread([a - b for a, b in zip(with_dgr.values, without.values, strict=True)])

    def of_representation(self, row: str, what: Callable[[Representation, str], float], task: str) -> Spread:
        """A number about a row's representation and a task, per seed.

        Raises:
            NotTestableError: none was measured.
        """
        found = self.representations.get(row, {})
        if not found:
            raise NotTestableError(f"{self.part.title}: the representation of {row} was not measured")
        return spread([what(entry, task) for _, entry in sorted(found.items())])

    def _common(self, rows: Sequence[str]) -> list[int]:
        wanted = [self._runs(row) for row in rows]
        tasks = {task for runs in wanted for measures in list(runs.values())[:1] for task in measures}
        wanted += [self.singles.get(single(task), {}) for task in tasks]
        return sorted(set.intersection(*map(set, wanted))) if wanted else []

    def _measures(self, row: str, seed: int) -> Measures:
        return self._runs(row)[seed]

    def _runs(self, row: str) -> Mapping[int, Measures]:
        group = self.singles if row in map(single, self.part.tasks) else self.runs
        return group.get(row, {})

    def _delta(self, row: str, seed: int) -> float:
        measures = self._measures(row, seed)
        alone = {task: self.singles[single(task)][seed][task] for task in measures}
        return mean_change(measures, alone, [column for column in self.columns if column.task in measures])


@dataclass(frozen=True)
class Outcomes:
    """What the study gave.

    Attributes:
        parts: experiment -> what it gave.
        failures: why runs ended early, by experiment, row and seed.
    """

    parts: Mapping[str, PartOutcomes]
    failures: Mapping[tuple[str, str, int], str]

    @classmethod
    def of(cls, parts: Mapping[str, Part], material: Material) -> "Outcomes":
        """From what a study's folder holds."""
        runs = {name: _by_seed(material.results[name].records) for name in parts}
        found: dict[str, PartOutcomes] = {}
        failures: dict[tuple[str, str, int], str] = {}
        for name, part in parts.items():
            results = material.results[name]
            representations = read_representations(material.out, name, runs[name]) if part.representation else {}
            singles = runs[part.single_in or name]
            found[name] = PartOutcomes(part, results.columns, runs[name], singles, representations, results.step_times)
            failures |= {(name, r.row, r.seed): r.failure for r in results.records if r.failure is not None}
        return cls(found, failures)

    def single_seeds(self) -> list["Outcomes"]:
        """The same for each seed alone."""
        seeds = {seed for part in self.parts.values() for runs in part.runs.values() for seed in runs}
        return [
            Outcomes({name: part.of_seed(seed) for name, part in self.parts.items()}, self.failures)
            for seed in sorted(seeds)
        ]

    def published(self, *names: str) -> list[PartOutcomes]:
        """The experiments that stand for tables of the paper.

        Raises:
            NotTestableError: there is none.
        """
        found = [part for part in self.parts.values() if part.part.published in names]
        if not found:
            raise NotTestableError("The data sets of this claim are not among the experiments.")
        return found

    def with_dummies(self) -> list[PartOutcomes]:
        """The experiments that vary dummies and tasks, with more than one task.

        Raises:
            NotTestableError: there is none.
        """
        found = [part for part in self.parts.values() if part.part.dummies and len(part.part.tasks) > 1]
        if not found:
            raise NotTestableError("No experiment varies the number of tasks.")
        return found


def _by_seed(records: Sequence[RunRecord]) -> dict[str, dict[int, Measures]]:
    found: dict[str, dict[int, Measures]] = {}
    for record in records:
        if record.failure is None:
            found.setdefault(record.row, {})[record.seed] = record.measures
    return found


def _of_seed(groups: Mapping[str, Mapping[int, T]], seed: int) -> dict[str, dict[int, T]]:
    return {row: {seed: by_seed[seed]} for row, by_seed in groups.items() if seed in by_seed}
