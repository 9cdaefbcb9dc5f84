"""What is trained: single tasks, pairs of tasks, the methods, and the numbers of shared blocks of Figure 1."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.relationships import mean_relationships, self_auxiliary_pairs
from mtl_ext.studies.changes import Column, relative_change
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.runs import RunRecord
from mtl_ext.studies.study import Experiment
from mtl_ext.task_names import self_auxiliary_name
from mtl_ext.trainers import Measures, TrainConfig

AllColumns = Mapping[str, Sequence[Column]]
"""Experiment -> the metrics of its data set."""

EQUAL, BOTTOM = "Equal", "Shared Bottom"
# The paper's names -> ours.
METHODS = {
    EQUAL: "EW",
    "Uncertainty": "UW",
    "DWA": "DWA",
    "Auto-λ": "AutoLambda",
    "PCGrad": "PCGrad",
    "CAGrad": "CAGrad",
    "GradDrop": "GradDrop",
    "SAAL_e": "SAALe",
    "SAAL_w": "SAALw",
    "SAAL_ew": "SAALw",
}
SAAL = ("SAAL_e", "SAAL_w", "SAAL_ew")
# Blocks of the ResNet: the stem with its pooling, and four stages. The half-shared network shares the first three.
BLOCKS, HALF = 5, 3
TYPICAL, ASYMMETRIC = "typical", "asymmetric"
OPTIONS = ("tasks", "metrics", "table", "sharing", "runtime_tasks", "observe_every")


@dataclass(frozen=True)
class Part:
    """The study on one data set.

    Its experiments are called by its name and one of ``single tasks``, ``pairs``, ``methods``, ``sharing``,
    ``runtime``.

    Args:
        name: of the data set, as the report has it.
        recipe: of the experiment of that name, or of the whole study.
        methods: the paper's names of the methods that take part; None: all.

    Raises:
        ValueError: an unknown method, or options that do not fit.
    """

    name: str
    recipe: Recipe
    methods: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for key in self.recipe.options:
            if key not in OPTIONS:
                raise ValueError(f"recipe {self.recipe.name!r} has the option {key!r}, expected {', '.join(OPTIONS)}")
        if len(self.tasks) < 2:
            raise ValueError(f"options of recipe {self.recipe.name!r}: tasks is {self.tasks}, expected at least two")
        for name in self.methods or ():
            if name not in METHODS:
                raise ValueError(f"methods has {name!r}, expected names out of {', '.join(METHODS)}")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the tables."""
        return tuple(self.recipe.options.get("tasks", ()))

    @property
    def runtime_tasks(self) -> tuple[str, ...]:
        """The tasks whose steps are timed."""
        return tuple(self.recipe.options.get("runtime_tasks", self.tasks))

    @property
    def table(self) -> str:
        """The paper's table that this data set, or what it stands for, is in."""
        return str(self.recipe.options.get("table", ""))

    @property
    def kept_methods(self) -> list[str]:
        """The methods that take part; equal weighting always does."""
        return [name for name in METHODS if self.methods is None or name == EQUAL or name in self.methods]

    def experiment_name(self, kind: str) -> str:
        """The name of one of the part's experiments."""
        return f"{self.name} {kind}"

    def shared_bottom(self) -> TrainConfig:
        """All tasks on one encoder with equal weights: where relationships are measured."""
        return self._config("EW", self.tasks, BLOCKS)

    def single_tasks(self) -> dict[str, TrainConfig]:
        """Task -> the configuration of its single-task network."""
        return {task: self._config("EW", (task,), BLOCKS) for task in self.tasks}

    def timed_auxiliaries(self, useful: Sequence[str]) -> tuple[str, ...]:
        """The self-auxiliaries of SAAL_e and SAAL_ew as they are timed.

        Args:
            useful: those of the trained tasks. Where others are timed, as large a share of their pairs, evenly spaced.
        """
        if self.runtime_tasks == self.tasks:
            return tuple(useful)
        every = [self_auxiliary_name(*pair) for pair in all_pairs(self.runtime_tasks)]
        count = round(len(useful) / len(all_pairs(self.tasks)) * len(every))
        return tuple(every[i * len(every) // count] for i in range(count))

    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """The part's experiments, see `Study.experiments`."""
        singles, pairs = self.experiment_name("single tasks"), self.experiment_name("pairs")
        validation: Mapping[int, Measures] = chosen.get(singles, {})
        changes: Mapping[str, float] = chosen.get(pairs, {})
        baseline = next(iter(validation.values()), None)
        useful = self_auxiliary_pairs(changes)
        seeds = self.recipe.seeds
        found = {
            "single tasks": Experiment(
                self.single_tasks(), seeds, self.tasks[0], gives=partial(_validation_measures, self)
            ),
            "pairs": Experiment(
                self._pairs(baseline),
                seeds,
                pair_row(*self.tasks[:2]),
                after=(singles,),
                gives=partial(_enumeration, self, validation),
            ),
            "methods": Experiment(
                {
                    **{name: self._method(name, self.tasks, useful, baseline) for name in self.kept_methods},
                    BOTTOM: self._config("EW", self.tasks, BLOCKS, baseline=baseline),
                },
                seeds,
                EQUAL,
                metrics=self.recipe.options.get("metrics", ()),
                after=(singles, pairs),
            ),
        }
        if self.recipe.options.get("sharing"):
            rows = self._sharing(useful, baseline)
            found["sharing"] = Experiment(rows, seeds, next(iter(rows)), after=(singles, pairs))
        if self.recipe.timing_rounds:
            auxiliaries = self.timed_auxiliaries(useful)
            timed = {name: self._method(name, self.runtime_tasks, auxiliaries, None) for name in self.kept_methods}
            found["runtime"] = Experiment(timed, 0, EQUAL, self.recipe.timing_rounds, after=(singles, pairs))
        return {self.experiment_name(kind): experiment for kind, experiment in found.items()}

    def _pairs(self, baseline: Measures | None) -> dict[str, TrainConfig]:
        two = combinations(self.tasks, 2)
        return {pair_row(*pair): self._config("EW", pair, BLOCKS, baseline=baseline) for pair in two}

    def _sharing(self, useful: tuple[str, ...], baseline: Measures | None) -> dict[str, TrainConfig]:
        """Figure 1 without its points that are rows of the methods or single tasks."""
        rows = {
            sharing_row(TYPICAL, n): self._config("EW", self.tasks, n, baseline=baseline)
            for n in range(1, BLOCKS)
            if n != HALF
        }
        for n in range(BLOCKS + 1):
            if n != HALF:
                name = sharing_row(ASYMMETRIC, n)
                rows[name] = self._config("SAALe", self.tasks, n, baseline=baseline, self_auxiliaries=useful)
        return rows

    def _method(
        self, name: str, tasks: tuple[str, ...], useful: tuple[str, ...], baseline: Measures | None
    ) -> TrainConfig:
        auxiliaries = {"SAAL_w": ("all",), "SAAL_e": useful, "SAAL_ew": useful}.get(name, ())
        select = {"baseline": baseline} if tasks == self.tasks else {"select": "last"}
        return self._config(METHODS[name], tasks, HALF, self_auxiliaries=auxiliaries, **select)

    def _config(self, method: str, tasks: Sequence[str], shared: int, **changes: Any) -> TrainConfig:
        options = {**self.recipe.train.get("model_options", {}), "shared_blocks": shared}
        return self.recipe.config(method, tasks=tuple(tasks), model_options=options, **changes)


def parts(recipe: Recipe, methods: Sequence[str] | None = None) -> list[Part]:
    """The parts of a recipe: one per experiment, or itself."""
    names = list(recipe.experiments)
    return [Part(name, recipe.experiment(name), methods) for name in names] or [Part(recipe.name, recipe, methods)]


def pair_row(first: str, second: str) -> str:
    """The row of two tasks that share their bottom, whatever their order."""
    return f"{first} + {second}"


def sharing_row(kind: str, shared: int) -> str:
    """The row of a point of Figure 1."""
    return f"{kind}, {shared} shared"


def task_change(measures: Measures, singles: Measures, columns: Sequence[Column], task: str) -> float:
    """Relative change of a task, the mean over its metrics, positive where better (Eq. 12); NaN against 0."""
    return statistics.fmean(relative_change(measures, singles, column) for column in columns if column.task == task)


def pair_changes(
    part: Part, singles: Measures, pairs: Mapping[str, Measures], columns: Sequence[Column]
) -> dict[str, float]:
    """``SOURCE->TARGET`` -> relative change of the target beside the source against the target alone, of one seed.

    Args:
        part: of the study.
        singles: of the tasks' single-task networks.
        pairs: row -> measures of the pair's network.
        columns: the metrics of all tasks.
    """
    changes = {}
    for source, target in all_pairs(part.tasks):
        measures = pairs[pair_row(*sorted((source, target), key=part.tasks.index))]
        changes[self_auxiliary_name(source, target)] = task_change(measures, singles, columns, target)
    return changes


def _validation_measures(part: Part, columns: AllColumns, records: Sequence[RunRecord]) -> dict[int, Measures]:
    """Seed -> validation measures of the single-task networks, of the seeds with which all ran to the end.

    Raises:
        ValueError: there is no such seed.
    """
    found = by_seed(records, lambda record: record.val, len(part.tasks))
    if not found:
        failed = {record.row: record.failure for record in records if record.failure}
        raise ValueError(f"{part.name}: a single-task run failed with every seed, {failed}: lower lr")
    return {seed: {task: rows[task][task] for task in part.tasks} for seed, rows in found.items()}


def _enumeration(
    part: Part, validation: Mapping[int, Measures], columns: AllColumns, records: Sequence[RunRecord]
) -> dict[str, float]:
    """Eq. 5 on validation data, the mean over the seeds with which everything ran to the end.

    Raises:
        ValueError: there is no such seed.
    """
    own = columns[part.experiment_name("methods")]
    found = by_seed(records, lambda record: record.val, len(part.tasks) * (len(part.tasks) - 1) // 2)
    each = [pair_changes(part, validation[seed], pairs, own) for seed, pairs in found.items() if seed in validation]
    if not each:
        failed = {record.row: record.failure for record in records if record.failure}
        raise ValueError(f"{part.name}: a pair's run failed with every seed, {failed}: lower lr")
    return mean_relationships(each)


def by_seed(
    records: Sequence[RunRecord], measures: Callable[[RunRecord], Measures], count: int
) -> dict[int, dict[str, Measures]]:
    """Seed -> row -> measures, of the seeds with which all of a number of rows ran to the end."""
    found: dict[int, dict[str, Measures]] = {}
    for record in records:
        if record.failure is None:
            found.setdefault(record.seed, {})[record.row] = measures(record)
    return {seed: found[seed] for seed in sorted(found) if len(found[seed]) == count}
