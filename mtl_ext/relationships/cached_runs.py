"""Runs that are carried out once: found again on disk by their configuration, and taken up where they were."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtl_ext.data import MultiTaskData
from mtl_ext.files import cache_folder
from mtl_ext.trainers import Measures, TrainConfig, train_run
from mtl_ext.trainers.run import CHECKPOINT, RESULTS

OnRun = Callable[[int, int], object]
"""Called with the number of runs done, and of all."""


def runs_folder(folder: Path | None) -> Path:
    """Where runs are kept: in the given folder, or in the cache."""
    return cache_folder() / "relationships" if folder is None else folder


def fingerprint(content: Mapping[str, Any]) -> str:
    """A name for plain values, the same for the same values."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


class CachedRuns:
    """Training runs in a folder, each in one of its own that is named after its configuration.

    Args:
        folder: of all runs; None: in the cache.
        data: the data set that the configurations describe, where it is loaded already.
    """

    def __init__(self, folder: Path | None, data: MultiTaskData | None) -> None:
        self.folder = runs_folder(folder)
        self.data = data

    def run_folder(self, config: TrainConfig) -> Path:
        """The folder of a run."""
        return self.folder / fingerprint(asdict(config))

    def validation(self, config: TrainConfig) -> Measures:
        """Task -> metric -> value on the validation split after the selected epoch, of a run that there is or will be.

        An interrupted run goes on from its last checkpoint.

        Raises:
            ValueError: the results in its folder cannot be used, or the configuration cannot train.
        """
        folder = self.run_folder(config)
        if not (folder / RESULTS).exists():
            train_run(config, self.data, folder, resume=True)
            (folder / CHECKPOINT).unlink(missing_ok=True)
        try:
            stored = json.loads((folder / RESULTS).read_text())
            measures = stored["epochs"][stored["selected_epoch"] - 1]["val"]
            # JSON has no NaN; write_json makes it null.
            return {
                task: {name: float("nan") if value is None else float(value) for name, value in group.items()}
                for task, group in measures.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            found = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{folder / RESULTS} is no result of a run ({found}): delete the folder to have it run again"
            ) from error
