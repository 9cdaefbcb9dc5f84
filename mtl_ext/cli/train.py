"""`mtl-ext train`: one configuration, one folder."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

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
