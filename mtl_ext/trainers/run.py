"""A run with a folder: its description, logs, checkpoints and results."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from mtl_ext.data import MultiTaskData
from mtl_ext.files import write_atomically, write_csv, write_json
from mtl_ext.trainers.checkpoint import remove_unfinished
from mtl_ext.trainers.config import TrainConfig
from mtl_ext.trainers.loop import Trainer
from mtl_ext.trainers.results import EpochRecord, StepRecord, TrainResult
from mtl_ext.versions import versions

CHECKPOINT = "checkpoint.pt"
RESULTS = "results.json"


def train_run(
    config: TrainConfig,
    data: MultiTaskData | None = None,
    folder: Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[StepRecord], object] | None = None,
) -> TrainResult:
    """Trains one configuration, from the beginning or from its last checkpoint.

    With a folder, this holds config.yaml; while the run goes on checkpoint.pt, epochs.csv, steps.csv (with `log_steps`)
    and, where tensorboard is installed, its log; in the end results.json and model.pt, the ``state_dict`` of the
    selected network, without what served its training alone.

    Args:
        config: the run's description.
        data: the data set that the configuration describes, where it is loaded already.
        folder: of the run; None writes nothing.
        resume: go on from the folder's checkpoint, and bit for bit as if the run had never stopped; without a
            checkpoint yet, from the beginning.
        overwrite: replace what the folder holds of an earlier run.
        on_progress: called after every step.

    Raises:
        ValueError: the configuration names what does not exist or does not go together; the checkpoint is damaged, or
            belongs to another configuration.
        FileExistsError: the folder holds a run, and neither `resume` nor `overwrite` is set.
        FloatingPointError: a loss is not finite.
        RunInterrupted: Ctrl-C, after a checkpoint was saved; only with a folder.
    """
    if resume and (overwrite or folder is None):
        raise ValueError("resume goes on with what a folder holds: give folder, and not overwrite")
    trainer = Trainer(config, data)
    if folder is None:
        return trainer.fit(on_progress)
    log = RunLog(folder, trainer)
    checkpoint = folder / CHECKPOINT
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
    elif not resume:
        _make_room(folder, overwrite)
    remove_unfinished(checkpoint)
    config.save(folder / "config.yaml")
    with log:
        result = trainer.fit(on_progress, log.add, checkpoint)
    write_atomically(folder / "model.pt", lambda file: torch.save(trainer.parts.model.deployed().state_dict(), file))
    write_json(folder / RESULTS, {"versions": versions(), **result.to_dict()})
    return result


class RunLog:
    """The tables and the TensorBoard log of a run, written after every epoch.

    Args:
        folder: of the run.
        trainer: the run; what it has done already is written as well.
    """

    def __init__(self, folder: Path, trainer: Trainer) -> None:
        self.folder = folder
        self.trainer = trainer
        self.rows_shown = 0
        self.writer: Any = None

    def __enter__(self) -> "RunLog":
        # A resumed run writes its log anew: steps after the last checkpoint would be there twice.
        rmtree(self.folder / "tensorboard", ignore_errors=True)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            pass
        else:
            self.writer = SummaryWriter(str(self.folder / "tensorboard"))
        for record in self.trainer.progress.records:
            self._show("epoch", record.epoch, record.row())
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def add(self, record: EpochRecord) -> None:
        """Takes a finished epoch."""
        progress = self.trainer.progress
        write_csv(self.folder / "epochs.csv", [record.row() for record in progress.records])
        if progress.rows:
            write_csv(self.folder / "steps.csv", progress.rows)
        self._show("epoch", record.epoch, record.row())
        for row in progress.rows[self.rows_shown :]:
            self._show("step", row["step"], row)
        self.rows_shown = len(progress.rows)

    def _show(self, kind: str, position: int, row: dict[str, Any]) -> None:
        if self.writer is not None:
            for name, value in row.items():
                if name not in ("epoch", "step"):
                    self.writer.add_scalar(f"{kind}/{name}", value, position)


def _make_room(folder: Path, overwrite: bool) -> None:
    """Removes the files of an earlier run, where that is allowed."""
    held = [folder / name for name in (RESULTS, CHECKPOINT, "model.pt", "epochs.csv", "steps.csv")]
    if not overwrite:
        if (folder / RESULTS).exists():
            raise FileExistsError(f"{folder} holds results: choose another folder (--out), or --overwrite")
        if (folder / CHECKPOINT).exists():
            raise FileExistsError(f"{folder} holds an unfinished run: --resume it, --overwrite it, or choose another")
    for path in held:
        path.unlink(missing_ok=True)
