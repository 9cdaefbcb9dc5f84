"""The runs of a study: which there are, which are missing, and what they gave."""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from mtl_ext.data import MultiTaskData
from mtl_ext.data.processes import map_in_processes
from mtl_ext.files import write_json
from mtl_ext.methods import NonFiniteError
from mtl_ext.trainers import Measures, TrainConfig, Trainer, cpu_threads, relative_step_times, train_run
from mtl_ext.trainers.build import build_data
from mtl_ext.trainers.run import CHECKPOINT
from mtl_ext.versions import versions


@dataclass(frozen=True)
class StudyRun:
    """One row of an experiment with one seed.

    Attributes:
        row: the row's name, as tables show it.
        config: what is trained.
        experiment: what the row belongs to; empty for a study's only one.
    """

    row: str
    config: TrainConfig
    experiment: str = ""

    @property
    def folder(self) -> str:
        """The run's folder inside the study's."""
        return run_folder(self.experiment, self.row, self.config.seed)


@dataclass(frozen=True)
class RunRecord:
    """What a run gave.

    Attributes:
        row: the row's name.
        seed: the run's seed.
        measures: task -> metric -> value on the test split after the selected epoch; empty for a failed run.
        similarity: the monitor's records.
        failure: why it ended early; none where it did not.
        val: as `measures`, on the validation split; empty where there is none.
    """

    row: str
    seed: int
    measures: Measures
    similarity: list[dict[str, float]]
    failure: str | None = None
    val: Measures = field(default_factory=dict)


def run_folder(experiment: str, row: str, seed: int) -> str:
    """The folder of a run inside the study's."""
    parts = [re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-") for name in (experiment, row) if name]
    return "/".join(["runs", *parts]) + f"-seed{seed}"


def with_seeds(rows: Mapping[str, TrainConfig], seeds: int, experiment: str = "") -> list[StudyRun]:
    """Every row with every seed, the seeds outermost: an interrupted study has all rows of its first seeds."""
    return [
        StudyRun(row, replace(config, seed=seed), experiment) for seed in range(seeds) for row, config in rows.items()
    ]


def run_one(config: TrainConfig, folder: Path) -> None:
    """Trains one configuration in a folder, from its last checkpoint if it was interrupted.

    A loss or gradient that is not finite is a result too: results.json then holds the configuration and the failure.
    """
    try:
        train_run(config, _load_data(_key(config)), folder, resume=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)  # with Adam three networks large, and of no more use
    except (FloatingPointError, NonFiniteError) as error:
        result = {"config": asdict(config), "failure": str(error)}
        write_json(folder / "results.json", {"versions": versions(), **result})


def execute(out: Path, runs: Sequence[StudyRun], workers: int, on_done: Callable[[int], object]) -> int:
    """Carries out the runs that have no results yet, each in its own folder.

    Args:
        out: the study's folder.
        runs: all of its runs.
        workers: processes, each with the configurations' number of threads.
        on_done: called with the number of runs just done: once for those found done, then with 1 after each.

    Returns:
        How many were carried out.

    Raises:
        ValueError: the folder holds results of another configuration.
        RuntimeError: a process ended before its work was done.
    """
    if not runs:
        return 0
    missing = [run for run in runs if read_record(out, run) is None]
    on_done(len(runs) - len(missing))
    for config in {_key(run.config): run.config for run in missing}.values():
        build_data(config)  # what has to be prepared is prepared once, before several processes want it
    for _ in map_in_processes(functools.partial(_execute_one, out), missing, workers):
        on_done(1)
    return len(missing)


def read_record(out: Path, run: StudyRun) -> RunRecord | None:
    """What a run gave; None where it has not been carried out.

    Raises:
        ValueError: the file is broken, or holds another configuration's results.
    """
    path = out / run.folder / "results.json"
    if not path.exists():
        return None
    advice = "choose another --out, or delete the run's folder to have it run again"
    try:
        stored = json.loads(path.read_text())
        config, failure = stored["config"], stored.get("failure")
        selected = {"measures": {}, "val": {}} if failure else stored["epochs"][stored["selected_epoch"] - 1]
        measures, val = (_measures(selected[name]) for name in ("measures", "val"))
        similarity = stored.get("similarity", [])
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is no result of a run ({type(error).__name__}: {error}): {advice}") from error
    wanted = json.loads(json.dumps(asdict(run.config)))
    if config != wanted:
        differing = sorted(key for key in wanted if config.get(key) != wanted[key])
        raise ValueError(f"{path} is of a run with other {', '.join(differing)}: {advice}")
    samples = [{name: _number(value) for name, value in sample.items()} for sample in similarity]
    return RunRecord(run.row, run.config.seed, measures, samples, failure, val)


def read_records(out: Path, runs: Sequence[StudyRun]) -> list[RunRecord]:
    """What the runs gave that have been carried out."""
    return [record for run in runs if (record := read_record(out, run)) is not None]


def measure_step_times(rows: Mapping[str, TrainConfig], reference: str, rounds: int) -> dict[str, float]:
    """Row -> time of a training step relative to the reference row, on one draw of batches and without monitor."""
    config = rows[reference]
    data = _load_data(_key(config))
    steps = {}
    for row, own in rows.items():
        step = Trainer(replace(own, monitor_every=0), data).step
        steps[row] = functools.partial(step, next(iter(step.batches(torch.Generator().manual_seed(0)))))
    with cpu_threads(config.threads):
        return relative_step_times(steps, reference, rounds)


def _execute_one(out: Path, run: StudyRun) -> None:
    run_one(run.config, out / run.folder)


def _key(config: TrainConfig) -> str:
    return json.dumps([config.data, config.data_options], sort_keys=True)


@functools.lru_cache(maxsize=1)
def _load_data(key: str) -> MultiTaskData:
    """The data set of a key, kept for the process's next run."""
    name, options = json.loads(key)
    return build_data(TrainConfig(data=name, data_options=options))


def _measures(stored: Mapping[str, Mapping[str, float | None]]) -> Measures:
    return {task: {name: _number(value) for name, value in group.items()} for task, group in stored.items()}


def _number(value: float | None) -> float:
    # JSON has no NaN; write_json makes it null.
    return float("nan") if value is None else value
