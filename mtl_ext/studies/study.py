"""A study: rows that are trained with several seeds into one folder, and a report on what they gave."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from mtl_ext.files import write_json
from mtl_ext.report import Report, write_report
from mtl_ext.studies.recipe import Recipe
from mtl_ext.studies.runs import RunRecord, StudyRun, execute, measure_step_times, read_records, with_seeds
from mtl_ext.trainers import TrainConfig
from mtl_ext.trainers.build import build_data, choose_tasks
from mtl_ext.versions import versions


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


@dataclass(frozen=True)
class Material:
    """What a report is made of.

    Attributes:
        columns: the metrics of the data set.
        records: the runs that have been carried out.
        planned: how many runs the study has.
        step_times: row -> time of a training step relative to the reference row; empty where not measured yet.
        versions: of what the numbers depend on.
    """

    columns: Sequence[Column]
    records: Sequence[RunRecord]
    planned: int
    step_times: Mapping[str, float]
    versions: Mapping[str, str]


class Study(ABC):
    """A paper's protocol on one recipe.

    Its folder holds study.json, step_times.json, report.html and a folder per run. Only what is missing there is done,
    so an interrupted study goes on where it was, and more seeds add to what is there.

    Args:
        recipe: how it is run.
        methods: names of the methods that take part, as the paper has them; None: all.

    Attributes:
        name: what the command line calls it.
        reference: the row whose step time is the unit.
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    def __init__(self, recipe: Recipe, methods: Sequence[str] | None = None) -> None:
        self.recipe = recipe
        self.methods = None if methods is None else list(methods)

    @abstractmethod
    def rows(self) -> dict[str, TrainConfig]:
        """Name -> configuration of what is trained; seeds are given to them by :attr:`runs`.

        Raises:
            ValueError: an unknown method.
        """

    @abstractmethod
    def report(self, material: Material) -> Report:
        """The report on what is there, finished or not.

        Raises:
            ValueError: there is nothing to report yet.
        """

    @property
    def runs(self) -> list[StudyRun]:
        """All runs, the seeds outermost."""
        return with_seeds(self.rows(), self.recipe.seeds)

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
        read_records(out, self.runs)  # refuses another study's folder before anything is written to it
        description = {"study": self.name, "recipe": asdict(self.recipe), "methods": self.methods}
        columns = [asdict(column) for column in self._columns()]
        write_json(out / "study.json", {**description, "columns": columns, "versions": versions()})
        done = execute(out, self.runs, workers, on_done)
        if done or not (out / "step_times.json").exists():
            times = measure_step_times(self.rows(), self.reference, self.recipe.timing_rounds)
            write_json(out / "step_times.json", times)

    def write_report(self, out: Path, description: Mapping[str, Any]) -> Path:
        """Writes report.html from what a folder and its description hold, and returns its path."""
        columns = [Column(**column) for column in description["columns"]]
        path = out / "step_times.json"
        times = json.loads(path.read_text()) if path.exists() else {}
        runs = self.runs
        material = Material(columns, read_records(out, runs), len(runs), times, description["versions"])
        write_report(out / "report.html", self.report(material))
        return out / "report.html"

    def _columns(self) -> list[Column]:
        config = self.rows()[self.reference]
        tasks = choose_tasks(config, build_data(config))
        metrics = [(task.name, make()) for task in tasks for make in task.metrics]
        return [Column(task, metric.name, metric.higher_is_better) for task, metric in metrics]


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
