"""`mtl-ext train`: one configuration, one folder."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console
from rich.table import Table

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar
from mtl_ext.methods import METHODS
from mtl_ext.trainers import StepRecord, TrainConfig, TrainResult, train_run

# With more tasks, the bar shows the mean of their losses.
TASKS_SHOWN = 3


def train(
    console: Console, config: TrainConfig, out: Path | None = None, overwrite: bool = False, resume: bool = False
) -> TrainResult:
    """Trains one configuration and writes its folder.

    Args:
        console: where progress and the result are shown.
        config: the run.
        out: the run's folder; by default runs/METHOD[-LEVEL]-seedSEED.
        overwrite: replace the run that the folder holds.
        resume: go on with the run that the folder holds.

    Raises:
        FileExistsError: the folder holds a run.
    """
    folder = default_folder(config) if out is None else out
    with progress_bar(console) as progress:
        bar = progress.add_task(config.method, total=None)

        def show_step(record: StepRecord) -> None:
            progress.update(bar, completed=record.step, total=record.total, description=step_label(config, record))

        result = train_run(config, folder=folder, resume=resume, overwrite=overwrite, on_progress=show_step)
    show(console, result)
    console.print(f"written to {folder}", markup=False)
    return result


def default_folder(config: TrainConfig) -> Path:
    """runs/METHOD-seedSEED, with the level where the method works on gradients."""
    method = METHODS.get(config.method)
    level = f"-{config.level}" if method is not None and method.level == "gradient" else ""
    return Path("runs", f"{config.method}{level}-seed{config.seed}")


def step_label(config: TrainConfig, record: StepRecord) -> str:
    """Epoch and losses, as the bar shows them."""
    losses = record.losses
    if len(losses) > TASKS_SHOWN:
        losses = {f"mean of {len(losses)} losses": sum(losses.values()) / len(losses)}
    text = "  ".join(f"{task} {value:.3g}" for task, value in losses.items())
    return f"epoch {record.epoch}/{config.epochs}  {text}"


def show(console: Console, result: TrainResult) -> None:
    """Prints the measures of the selected epoch."""
    selected = result.selected
    table = Table(title=f"epoch {selected.epoch} of {len(result.epochs)}, test split", title_justify="left")
    for column in ("task", "metric"):
        table.add_column(column)
    for column in ("value", *(("validation",) if selected.val else ()), "train loss", "weight"):
        table.add_column(column, justify="right")
    for task, metrics in selected.measures.items():
        for metric, value in metrics.items():
            val = [f"{selected.val[task][metric]:.4g}"] if selected.val else []
            table.add_row(
                *(task, metric, f"{value:.4g}", *val), f"{selected.losses[task]:.4g}", f"{selected.weights[task]:.3g}"
            )
    console.print(table)
    if result.selected_on_test:
        console.print("the epoch was selected on the test split: its measures are too optimistic", style="yellow")
    if result.stopped_early:
        console.print(f"stopped early: {result.config.early_stop} evaluations without a better one")


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of the options below")
    parser.add_class_arguments(TrainConfig, None)
    parser.add_argument("--out", type=Path | None, help="folder of the run (default: runs/METHOD[-LEVEL]-seedSEED)")
    parser.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out, from its own config.yaml")


def _run(console: Console, options: Any) -> None:
    config = TrainConfig(**{field.name: options[field.name] for field in fields(TrainConfig)})
    train(console, config, options.out, options.overwrite, options.resume)


COMMAND = Command(
    "train",
    "[--config FILE] [options]",
    "train one configuration",
    """\
Trains one configuration, from a YAML file, from flags, or from a file with flags on top. The run's folder holds
config.yaml (the whole configuration), results.json, model.pt, epochs.csv and, where tensorboard is installed, its log.
Ctrl-C ends a run after the step; it goes on bit for bit with --resume, which also works after a crash.

examples:
  mtl-ext train --method UW --epochs 8 --seed 1
  mtl-ext train --method PCGrad --level feature --method_options.reduction mean
  mtl-ext train --tasks '[left]' --data_options.train_size 1000 --out runs/single_left
  mtl-ext train --config runs/UW-seed1/config.yaml --out runs/again       (the same numbers again)
  mtl-ext train --out runs/again --resume                                 (goes on where it stopped)
""",
    _run,
    _arguments,
)
