"""What the runs of the SAAL study gave, by data set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mtl_ext.relationships import Agreement, Measure, Relationships, agreement, mean_relationships
from mtl_ext.studies.changes import Column
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.runs import RunRecord
from mtl_ext.studies.saal.measures import as_measure
from mtl_ext.studies.saal.protocol import (
    BLOCKS,
    BOTTOM,
    EQUAL,
    HALF,
    TYPICAL,
    Part,
    by_seed,
    pair_changes,
    sharing_row,
    task_change,
)
from mtl_ext.studies.spread import Spread, spread
from mtl_ext.trainers import Measures

STL, ENUMERATION = "STL", "Enumeration"


@dataclass(frozen=True)
class PartOutcomes:
    """Measures and changes on one data set. Changes are against single-task networks with the same seed, on test data.

    Attributes:
        part: what was planned.
        columns: the metrics of all tasks.
        records: kind of experiment -> the runs that have been carried out.
        measures: measure of task relationships -> seed -> values.
        step_times: method -> time of a step relative to equal weighting.
        only: the one seed that counts; None: all.
    """

    part: Part
    columns: Sequence[Column]
    records: Mapping[str, Sequence[RunRecord]]
    measures: Mapping[str, Mapping[int, Relationships]] = field(default_factory=dict)
    step_times: Mapping[str, float] = field(default_factory=dict)
    only: int | None = None

    @property
    def singles(self) -> dict[int, Measures]:
        """Seed -> test measures of the single-task networks, of the seeds with which all ran to the end."""
        found = by_seed(self._records("single tasks"), lambda record: record.measures, len(self.part.tasks))
        return {seed: {task: rows[task][task] for task in self.part.tasks} for seed, rows in found.items()}

    @property
    def failures(self) -> dict[str, str]:
        """Run -> why it ended early."""
        return {
            f"{self.part.name}, {record.row}, seed {record.seed}": record.failure
            for records in self.records.values()
            for record in records
            if record.failure
        }

    @property
    def methods(self) -> list[str]:
        """The methods, shared bottom last, that ran to the end with at least one seed that single tasks have, too."""
        return [name for name in (*self.part.kept_methods, BOTTOM) if self._runs(name)]

    @property
    def half_shared(self) -> list[str]:
        """The methods on the half-shared network."""
        return [name for name in self.methods if name != BOTTOM]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the single-task networks."""
        return list(self.singles)

    def single(self, seed: int) -> "PartOutcomes":
        """The same for one seed alone, without the times of steps, which are of none."""
        return replace(self, only=seed, step_times={})

    def need(self, *names: str) -> None:
        """Checks that methods have results.

        Raises:
            NotTestableError: one has none.
        """
        missing = [name for name in names if not self._runs(name)]
        if missing:
            raise NotTestableError(f"{self.part.name}: no finished run of {', '.join(missing)}")

    def role(self, name: str) -> str:
        """The task that has a role in the paper's claims.

        Raises:
            NotTestableError: there is none.
        """
        tasks = self.part.recipe.groups.get(name, [])
        if not tasks:
            raise NotTestableError(f"{self.part.name} has no task in the role of {name}")
        return tasks[0]

    def value(self, name: str, column: Column) -> Spread:
        """A metric of a method, or of single tasks, on the test split."""
        runs = self.singles if name == STL else self._runs(name)
        return spread([measures[column.task][column.metric] for measures in runs.values()])

    def change(self, name: str, task: str) -> Spread:
        """Relative change of a task, the mean over its metrics, positive where better."""
        return spread([changes[task] for changes in self._changes(name).values()])

    def delta(self, name: str) -> Spread:
        """Delta_MTL: the mean change over tasks."""
        return spread([sum(changes.values()) / len(changes) for changes in self._changes(name).values()])

    def difference(self, name: str, other: str) -> Spread:
        """Delta_MTL of a method minus that of another with the same seed."""
        ours, theirs = self._changes(name), self._changes(other)
        common = [seed for seed in ours if seed in theirs]
        if not common:
            raise NotTestableError(f"{self.part.name}: no seed with which both {name} and {other} ran to the end")
        return spread(
            [(sum(ours[seed].values()) - sum(theirs[seed].values())) / len(self.part.tasks) for seed in common]
        )

    def sharing_points(self, kind: str) -> dict[int, str]:
        """Shared blocks -> the row that is a point of a curve of Figure 1; the points that are there."""
        rows = {n: sharing_row(kind, n) for n in range(BLOCKS + 1)}
        rows |= {0: STL, HALF: EQUAL, BLOCKS: BOTTOM} if kind == TYPICAL else {HALF: "SAAL_e"}
        return {n: row for n, row in rows.items() if self._changes(row)}

    def pair_seeds(self) -> dict[int, dict[str, float]]:
        """Seed -> ``SOURCE->TARGET`` -> change on validation data: what enumeration is the mean of."""
        count = len(self.part.tasks) * (len(self.part.tasks) - 1) // 2
        pairs = by_seed(self._records("pairs"), lambda record: record.val, count)
        alone = by_seed(self._records("single tasks"), lambda record: record.val, len(self.part.tasks))
        return {
            seed: pair_changes(self.part, {t: alone[seed][t][t] for t in self.part.tasks}, rows, self.columns)
            for seed, rows in pairs.items()
            if seed in alone
        }

    def enumeration(self) -> Measure:
        """Actual task relationships (Figure 3), on validation data, the mean over seeds.

        Raises:
            NotTestableError: no seed has all pairs.
        """
        each = list(self.pair_seeds().values())
        if not each:
            raise NotTestableError(f"{self.part.name}: no seed with which all pairs ran to the end")
        values = mean_relationships(each)
        if not all(map(math.isfinite, values.values())):
            raise NotTestableError(f"{self.part.name}: a change of the enumeration is no number")
        return Measure(ENUMERATION, values)

    def measure(self, name: str) -> Measure:
        """A measure of task relationships, the mean over seeds.

        Raises:
            NotTestableError: there is none, or a value is not a number.
        """
        each = [values for seed, values in self.measures.get(name, {}).items() if self.only in (None, seed)]
        if not each:
            raise NotTestableError(f"{self.part.name}: {name} was not measured")
        values = mean_relationships(each)
        if not all(map(math.isfinite, values.values())):
            raise NotTestableError(f"{self.part.name}: {name} has values that are no numbers")
        return as_measure(name, values, len(self.part.tasks))

    def agreement(self, name: str) -> Agreement:
        """How a measure agrees with the enumeration.

        Raises:
            NotTestableError: one of the two is missing.
        """
        return agreement(self.measure(name), self.enumeration())

    def _records(self, kind: str) -> list[RunRecord]:
        return [record for record in self.records.get(kind, ()) if self.only in (None, record.seed)]

    def _runs(self, name: str) -> dict[int, Measures]:
        """Seed -> test measures of a row of the methods or of Figure 1, of the seeds that single tasks have, too."""
        singles = self.singles
        return {
            record.seed: record.measures
            for record in (*self._records("methods"), *self._records("sharing"))
            if record.row == name and record.failure is None and record.seed in singles
        }

    def _changes(self, name: str) -> dict[int, dict[str, float]]:
        """Seed -> task -> change against single tasks."""
        singles = self.singles
        runs = singles if name == STL else self._runs(name)
        return {
            seed: {task: task_change(measures, singles[seed], self.columns, task) for task in self.part.tasks}
            for seed, measures in runs.items()
        }


@dataclass(frozen=True)
class Outcomes:
    """All data sets of a study."""

    parts: Sequence[PartOutcomes]

    def single_seeds(self) -> list["Outcomes"]:
        """The same for each seed alone."""
        seeds = sorted({seed for part in self.parts for seed in part.seeds})
        return [Outcomes([part.single(seed) for part in self.parts if seed in part.seeds]) for seed in seeds]

    def of_table(self, table: str, reason: str) -> PartOutcomes:
        """The data set that is in a table of the paper, or stands for it.

        Raises:
            NotTestableError: there is none; the reason says what it would have to be.
        """
        for part in self.parts:
            if part.part.table == table:
                return part
        raise NotTestableError(reason)
