"""The measures that are taken while a shared-bottom network trains."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mtl_ext.data import MultiTaskData
from mtl_ext.files import write_json
from mtl_ext.relationships.cached_runs import fingerprint, runs_folder
from mtl_ext.relationships.enumeration import measured_tasks
from mtl_ext.relationships.gradient_angle import gradient_angles
from mtl_ext.relationships.look_ahead import LookAhead
from mtl_ext.trainers import TrainConfig, Trainer
from mtl_ext.trainers.build import build_data


@dataclass(frozen=True)
class Observed:
    """What one run gave, ``SOURCE->TARGET`` -> median over the run.

    Attributes:
        look_ahead_train: relative fall of the target's loss on the training batch of the source's step.
        look_ahead_val: the same on a validation batch.
        gradient_angle: degrees; smaller is closer.
    """

    look_ahead_train: dict[str, float]
    look_ahead_val: dict[str, float]
    gradient_angle: dict[str, float]


def observe_run(
    config: TrainConfig, data: MultiTaskData | None = None, *, every: int = 10, folder: Path | None = None
) -> Observed:
    """Trains all tasks with a shared bottom, once, and measures look-ahead losses and gradient angles on the way.

    Args:
        config: see `enumerate_pairs`; here its seed counts.
        data: the data set that the configuration describes, where it is loaded already.
        every: steps between two measurements.
        folder: where the result is kept and found again, by the configuration; None: in the cache.

    Raises:
        ValueError: see `enumerate_pairs`; or the file of an earlier result cannot be used.
    """
    config = replace(config, monitor_every=every)
    path = runs_folder(folder) / f"observed-{fingerprint(asdict(config))}.json"
    if not path.exists():
        data = build_data(config) if data is None else data
        tasks = [task.name for task in measured_tasks(config, data)]
        trainer = Trainer(config, data)
        look_ahead = LookAhead(trainer, every)
        result = trainer.fit(on_step=look_ahead)
        angles = gradient_angles(result.similarity, tasks)
        found = Observed(look_ahead.relationships("train"), look_ahead.relationships("val"), angles)
        write_json(path, asdict(found))
    try:
        stored = json.loads(path.read_text())
        return Observed(**{name: {pair: float(value) for pair, value in stored[name].items()} for name in stored})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no result of a run ({error}): delete it to have it run again") from error
