"""`mtl-ext train`: one configuration, one folder."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from mtl_ext.cli.report import progress_bar, versions, write_csv, write_json
from mtl_ext.files import write_text
from mtl_ext.trainers import EpochRecord, SingleTrainer, TrainConfig, TrainResult


def train(console: Console, config: TrainConfig, out: Path | None = None, overwrite: bool = False) -> TrainResult:
    """Trains one configuration and writes its folder.

    Args:
        console: where progress and the result are shown.
        config: the run.
        out: the run's folder; by default runs/METHOD[-LEVEL]-seedSEED.
        overwrite: replace the results that the folder holds.

    Raises:
        FileExistsError: the folder holds results.
    """
    trainer = SingleTrainer(config)
    folder = default_folder(config, trainer.method.level) if out is None else out
    if (folder / "results.json").exists() and not overwrite:
        raise FileExistsError(f"{folder} holds results: choose another --out, or --overwrite")
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    write_text(folder / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    log, close = tensorboard_log(folder)
    with progress_bar(console) as progress:
        bar = progress.add_task(config.method, total=config.epochs * trainer.steps_per_epoch)
        result = trainer.fit(lambda: progress.advance(bar), log)
    close()
    write_json(folder / "results.json", {"versions": versions(), **result.to_dict()})
    write_csv(folder / "epochs.csv", [epoch_row(record) for record in result.epochs])
    show(console, result)
    console.print(f"written to {folder}", markup=False)
    return result


def default_folder(config: TrainConfig, method_level: str) -> Path:
    """runs/METHOD-seedSEED, with the level where the method works on gradients."""
    level = f"-{config.level}" if method_level == "gradient" else ""
    return Path("runs", f"{config.method}{level}-seed{config.seed}")


def epoch_row(record: EpochRecord) -> dict[str, Any]:
    """One line of the table of epochs: loss and weight of each task, then its measures."""
    row: dict[str, Any] = {"epoch": record.epoch}
    row |= {f"loss/{task}": value for task, value in record.losses.items()}
    row |= {f"weight/{task}": value for task, value in record.weights.items()}
    for task, metrics in record.measures.items():
        row |= {f"{task}/{metric}": value for metric, value in metrics.items()}
    return row


def tensorboard_log(folder: Path) -> tuple[Callable[[EpochRecord], None], Callable[[], None]]:
    """What logs an epoch and what closes the log; neither does anything without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda record: None, lambda: None
    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(record: EpochRecord) -> None:
        for name, value in epoch_row(record).items():
            if name != "epoch":
                writer.add_scalar(name, value, record.epoch)

    return log, writer.close


def show(console: Console, result: TrainResult) -> None:
    """Prints the measures after the last epoch."""
    last = result.epochs[-1]
    table = Table()
    for column in ("task", "metric"):
        table.add_column(column)
    for column in ("value", "train loss", "weight"):
        table.add_column(column, justify="right")
    for task, metrics in last.measures.items():
        for metric, value in metrics.items():
            table.add_row(task, metric, f"{value:.4g}", f"{last.losses[task]:.4g}", f"{last.weights[task]:.3g}")
    console.print(table)
