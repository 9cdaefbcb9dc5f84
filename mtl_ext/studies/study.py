"""A study: rows that are trained with several seeds into one folder, and a report on what they gave."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from mtl_ext.files import write_json
from mtl_ext.report import Report, write_report
from mtl_ext.studies.changes import Column
from mtl_ext.studies.choice import Choice, Decision, decide
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.runs import RunRecord, StudyRun, execute, measure_step_times, read_records, with_seeds
from mtl_ext.trainers import TrainConfig
from mtl_ext.trainers.build import build_data, choose_tasks
from mtl_ext.versions import versions


@dataclass(frozen=True)
class Experiment:
    """Rows that are compared with one another: on one data set, with the same seeds.

    Attributes:
        rows: name -> configuration of what is trained; the seeds are given to them by the study.
        seeds: runs per row.
        reference: the row whose tasks' metrics are the columns, and whose step time is the unit.
        timing_rounds: rounds of the comparison of step times; 0: none.
        metrics: names TASK/METRIC of the metrics that count, or TASK for all of a task's, in the columns' order;
            empty: all.
        after: experiments that are carried out before, for what they give.
        gives: the columns of all experiments and the records of all of its own runs -> what later configurations are
            made with; none for most.
    """

    rows: Mapping[str, TrainConfig]
    seeds: int
    reference: str
    timing_rounds: int = 0
    metrics: Sequence[str] = ()
    after: tuple[str, ...] = ()
    gives: Callable[[Mapping[str, Sequence[Column]], Sequence[RunRecord]], Any] | None = None


@dataclass(frozen=True)
class Results:
    """What an experiment gave.

    Attributes:
        columns: the metrics of its data set.
        records: the runs that have been carried out.
        planned: how many runs there are.
        step_times: row -> time of a training step relative to the reference row; empty where not measured.
    """

    columns: Sequence[Column]
    records: Sequence[RunRecord]
    planned: int
    step_times: Mapping[str, float]


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    Attributes:
        results: experiment -> what it gave.
        decisions: choice -> what was chosen; without those that are open.
        out: the study's folder.
        versions: of what the numbers depend on.
    """

    results: Mapping[str, Results]
    decisions: Mapping[str, Decision]
    out: Path
    versions: Mapping[str, str]

    @property
    def done(self) -> int:
        """How many of the experiments' runs have been carried out."""
        return sum(len(results.records) for results in self.results.values())

    @property
    def planned(self) -> int:
        """How many runs the experiments have."""
        return sum(results.planned for results in self.results.values())


class Study(ABC):
    """A paper's protocol on one recipe.

    Its folder holds study.json, step_times.json, report.html and a folder per run. Only what is missing there is done,
    so an interrupted study goes on where it was, and more seeds add to what is there.

    Args:
        recipe: how it is run.
        methods: names of the methods that take part, as the paper has them; None: all.

    Attributes:
        name: what the command line calls it.
        summary: the paper and what is run of it, in one line of the command line's help.
        examples: lines of the command line's help.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    examples: ClassVar[Sequence[str]]

    def __init__(self, recipe: Recipe, methods: Sequence[str] | None = None) -> None:
        self.recipe = recipe
        self.methods = None if methods is None else list(methods)

    @abstractmethod
    def experiments(self, chosen: Mapping[str, Any]) -> dict[str, Experiment]:
        """Name -> what is run, in order; the name of a study's only one may be empty.

        Args:
            chosen: choice -> its value, and experiment -> what it gave, without those that are not finished; rows and
                their names must not depend on it, only their configurations.

        Raises:
            ValueError: an unknown method, or a recipe that does not fit the study.
        """

    @abstractmethod
    def report(self, material: Material) -> Report:
        """The report on what is there, finished or not.

        Raises:
            ValueError: there is nothing to report yet.
        """

    def choices(self) -> dict[str, Choice]:
        """Name -> what held-out data are to choose before the experiments; none by default."""
        return {}

    def analyse(self, out: Path, runs: Sequence[StudyRun], workers: int) -> None:  # noqa: B027
        """Computes what the report needs besides the runs' results, where it is missing; nothing by default.

        Args:
            out: the study's folder.
            runs: the experiments' runs, all carried out.
            workers: processes.
        """

    @property
    def runs(self) -> list[StudyRun]:
        """All runs: those of the choices, then those of the experiments with each choice's first value."""
        return [*self._trials(), *self._runs(self.experiments(self._chosen({})))]

    def run(self, out: Path, workers: int, on_done: Callable[[int], object] = lambda count: None) -> None:
        """Carries out what is missing in a folder, then times the steps.

        Args:
            out: the study's folder.
            workers: processes.
            on_done: called with the number of runs just done, first with that of those found there.

        Raises:
            ValueError: the folder holds results of another configuration, or the recipe describes no run.
            RuntimeError: a process ended before its work was done.
        """
        columns = self._columns()
        decisions = self._decisions(out, columns)  # refuses another study's folder before anything is written to it
        read_records(out, self._runs(self._ready(self._given(out, columns, self._chosen(decisions)))))
        described = {name: [asdict(column) for column in group] for name, group in columns.items()}
        description = {"study": self.name, "recipe": asdict(self.recipe), "methods": self.methods, "columns": described}
        write_json(out / "study.json", {**description, "versions": versions()})
        execute(out, self._trials(), workers, on_done)
        chosen = self._chosen(self._decisions(out, columns))
        experiments: dict[str, Experiment] = {}
        done = 0
        while ready := self._ready(given := self._given(out, columns, chosen), experiments):
            done += execute(out, self._runs(ready), workers, on_done)
            experiments |= ready
        experiments = self.experiments(given)
        self.analyse(out, self._runs(experiments), workers)
        if done or not (out / "step_times.json").exists():
            times = {
                name: measure_step_times(experiment.rows, experiment.reference, experiment.timing_rounds)
                for name, experiment in experiments.items()
                if experiment.timing_rounds
            }
            write_json(out / "step_times.json", times)

    def write_report(self, out: Path, description: Mapping[str, Any]) -> Path:
        """Writes report.html from what a folder and its description hold, and returns its path."""
        columns = {name: [Column(**entry) for entry in group] for name, group in description["columns"].items()}
        path = out / "step_times.json"
        times = json.loads(path.read_text()) if path.exists() else {}
        decisions = self._decisions(out, columns)
        results = {}
        given = self._given(out, columns, self._chosen(decisions))
        ready = self._ready(given)
        for name, experiment in self.experiments(given).items():
            runs = with_seeds(experiment.rows, experiment.seeds, name)
            records = read_records(out, runs) if name in ready else []
            results[name] = Results(columns[name], records, len(runs), times.get(name, {}))
        material = Material(results, decisions, out, description["versions"])
        write_report(out / "report.html", self.report(material))
        return out / "report.html"

    def _columns(self) -> dict[str, list[Column]]:
        """Choice or experiment -> its columns."""
        found = {name: _columns(next(iter(c.rows.values())), c.metrics) for name, c in self.choices().items()}
        for name, e in self.experiments(self._chosen({})).items():
            found[name] = _columns(e.rows[e.reference], e.metrics)
        return found

    def _decisions(self, out: Path, columns: Mapping[str, Sequence[Column]]) -> dict[str, Decision]:
        """What the choices' runs decide, where all are there."""
        found = {}
        for name, choice in self.choices().items():
            records = read_records(out, with_seeds(choice.rows, choice.seeds, name))
            decision = decide(choice, columns[name], records)
            if decision is not None:
                found[name] = decision
        return found

    def _chosen(self, decisions: Mapping[str, Decision]) -> dict[str, Any]:
        """Choice -> its value; of what is open the first."""
        first = {name: next(iter(choice.values.values())) for name, choice in self.choices().items()}
        return first | {name: decision.value for name, decision in decisions.items()}

    def _given(self, out: Path, columns: Mapping[str, Sequence[Column]], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """What is chosen, and what those experiments give whose runs are all there."""
        found = dict(chosen)
        while True:
            for name, experiment in self._ready(found, found).items():
                if experiment.gives is None or name in found:
                    continue
                records = read_records(out, with_seeds(experiment.rows, experiment.seeds, name))
                if len(records) == len(experiment.rows) * experiment.seeds:
                    found[name] = experiment.gives(columns, records)
                    break
            else:
                return found

    def _ready(self, given: Mapping[str, Any], leave_out: Collection[str] = ()) -> dict[str, Experiment]:
        """The experiments that have been given what they need."""
        experiments = self.experiments(given).items()
        return {name: e for name, e in experiments if set(e.after) <= set(given) and name not in leave_out}

    def _trials(self) -> list[StudyRun]:
        choices = self.choices().items()
        return [run for name, choice in choices for run in with_seeds(choice.rows, choice.seeds, name)]

    def _runs(self, experiments: Mapping[str, Experiment]) -> list[StudyRun]:
        return [run for name, e in experiments.items() for run in with_seeds(e.rows, e.seeds, name)]


def _columns(config: TrainConfig, metrics: Sequence[str]) -> list[Column]:
    """The columns of a configuration's tasks: all, or those of some metrics.

    Raises:
        ValueError: there is no such metric.
    """
    tasks = choose_tasks(config, build_data(config))
    made = [(task.name, make()) for task in tasks for make in task.metrics]
    columns = {f"{task}/{metric.name}": Column(task, metric.name, metric.higher_is_better) for task, metric in made}
    if not metrics:
        return list(columns.values())
    chosen = {name: [columns[key] for key in columns if name in (key, columns[key].task)] for name in metrics}
    for name, found in chosen.items():
        if not found:
            raise ValueError(f"metrics has {name!r}, expected tasks or names out of {', '.join(columns)}")
    return [column for found in chosen.values() for column in found]


def read_description(out: Path) -> dict[str, Any]:
    """The study.json of a folder.

    Raises:
        ValueError: there is none, or it is none of a study.
    """
    path = out / "study.json"
    if not path.exists():
        raise ValueError(f"{out} holds no study: there is no {path.name} in it")
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        missing = {"study", "recipe", "methods", "columns", "versions"} - set(content)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if missing:
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}: it is not of a study")
    return content
