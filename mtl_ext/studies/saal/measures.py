"""The measures of Table 5: what is computed after the runs, kept in the study's folder, and read for the report."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mtl_ext.data.processes import map_in_processes
from mtl_ext.files import write_json
from mtl_ext.methods import NonFiniteError
from mtl_ext.relationships import Measure, Relationships, feature_similarity, observe_run
from mtl_ext.relationships.cached_runs import CachedRuns
from mtl_ext.studies.runs import StudyRun
from mtl_ext.studies.saal.protocol import Part
from mtl_ext.task_names import is_primary
from mtl_ext.trainers.build import build_data

# The rows of the paper's Table 5.
LOOK_AHEAD_TRAIN, LOOK_AHEAD_VAL = "Look-ahead, train", "Look-ahead, validation"
ANGLE, SIMILARITY, COEFFICIENTS = "Gradient angle", "Feature Similarity", "SAAL_w coefficients"
MEASURES = (LOOK_AHEAD_TRAIN, LOOK_AHEAD_VAL, ANGLE, SIMILARITY, COEFFICIENTS)
FOLDER = "relationships"
# Steps between two looks at a run.
OBSERVE_EVERY = 10

BySeed = Mapping[int, Relationships]


@dataclass(frozen=True)
class Job:
    """What one process measures: everything of one data set and seed."""

    part: Part
    seed: int

    def path(self, out: Path) -> Path:
        """The file of what it found."""
        return out / FOLDER / f"{self.part.name}-seed{self.seed}.json"


def measure(out: Path, parts: Sequence[Part], workers: int) -> None:
    """Observes shared-bottom runs and trains on frozen features, where the folder does not have that yet."""
    jobs = [Job(part, seed) for part in parts for seed in range(part.recipe.seeds)]
    missing = [job for job in jobs if not job.path(out).exists()]
    for _ in map_in_processes(partial(_measure_one, out), missing, workers):
        pass


def read_measures(out: Path, part: Part) -> dict[str, dict[int, Relationships]]:
    """Measure -> seed -> ``SOURCE->TARGET`` -> value, of what is there.

    Raises:
        ValueError: a file is broken.
    """
    found: dict[str, dict[int, Relationships]] = {name: {} for name in MEASURES}
    for seed in range(part.recipe.seeds):
        path = Job(part, seed).path(out)
        if path.exists():
            for name, values in _read(path).get("measures", {}).items():
                found[name][seed] = {pair: _number(value) for pair, value in values.items()}
        weights = _learnt_weights(out, part, seed)
        if weights:
            found[COEFFICIENTS][seed] = weights
    return found


def as_measure(name: str, values: Relationships, tasks: int) -> Measure:
    """Values with what they mean."""
    if name == ANGLE:
        return Measure(name, values, smaller_is_closer=True, neutral=90.0, style="{:.0f}°")
    if name == COEFFICIENTS:
        return Measure(name, values, neutral=1 / tasks, style="{:.3f}")
    style = "{:+.1%}" if name == SIMILARITY else "{:+.3%}"
    return Measure(name, values, style=style)


def _measure_one(out: Path, job: Job) -> None:
    config = replace(job.part.shared_bottom(), seed=job.seed)
    folder = out / FOLDER / "runs"
    try:
        data = build_data(config)
        every = int(job.part.recipe.options.get("observe_every", OBSERVE_EVERY))
        observed = observe_run(config, data, every=every, folder=folder)
        runs = CachedRuns(folder, data)
        for task, alone in job.part.single_tasks().items():
            single = replace(alone, seed=job.seed)
            target = runs.run_folder(single)
            if not target.exists():  # the study has trained it
                run = StudyRun(task, single, job.part.experiment_name("single tasks"))
                shutil.copytree(out / run.folder, target)
        similarity = feature_similarity(config, data, seeds=(job.seed,), folder=folder)
    except (FloatingPointError, NonFiniteError) as error:
        write_json(job.path(out), {"failure": str(error)})
        return
    found = {
        LOOK_AHEAD_TRAIN: observed.look_ahead_train,
        LOOK_AHEAD_VAL: observed.look_ahead_val,
        ANGLE: observed.gradient_angle,
        SIMILARITY: similarity,
    }
    write_json(job.path(out), {"config": asdict(config), "measures": found})


def _learnt_weights(out: Path, part: Part, seed: int) -> dict[str, float]:
    """SAAL_w's weights of the self-auxiliary tasks after Eq. 11, the mean over the last epoch; none without a run."""
    run = StudyRun("SAAL_w", replace(part.shared_bottom(), seed=seed), part.experiment_name("methods"))
    path = out / run.folder / "results.json"
    if not path.exists() or "failure" in (stored := _read(path)):
        return {}
    return {name: _number(weight) for name, weight in stored["epochs"][-1]["weights"].items() if not is_primary(name)}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it to have it made again") from error
    return content


def _number(value: float | None) -> float:
    # JSON has no NaN; write_json makes it null.
    return float("nan") if value is None else float(value)
