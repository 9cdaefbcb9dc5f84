"""`mtl-ext demo`: every method on real digits, against one network per task."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar, versions, write_csv, write_json
from mtl_ext.data import MultiTaskData, multi_mnist
from mtl_ext.files import write_atomically
from mtl_ext.methods import METHODS
from mtl_ext.metrics import task_changes
from mtl_ext.plots import comparison_figure
from mtl_ext.trainers import (
    Measures,
    TrainConfig,
    Trainer,
    TrainResult,
    cpu_threads,
    lower_is_better,
    relative_step_times,
    train_run,
)

DEMO_METHODS = ("EW", "RLW", "UW", "PCGrad", "MGDA")
REFERENCE = "EW"

# A paragraph a line: the console wraps them.
READING = """\
Delta_MTL: mean relative change of the measures against one network per task; above 0, learning together helps. \
One seed: differences of several percent can be noise.
step/EW: time of a training step. GDS, GMS: how alike the tasks' gradients are in direction (below 0: they pull apart) \
and in length, at the shared parameters, mean over the run."""


@dataclass(frozen=True)
class Contender:
    """A method that took part in the demo.

    Attributes:
        label: method, with the level where it works on gradients.
        result: its run.
        changes: task -> relative change against single-task training.
        delta: their mean, Delta_MTL.
        step_time: of a training step, relative to equal weighting.
    """

    label: str
    result: TrainResult
    changes: dict[str, float]
    delta: float
    step_time: float

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers, for JSON."""
        summary = {"label": self.label, "delta_mtl": self.delta, "step_time": self.step_time, "changes": self.changes}
        similarity = {name: self.result.mean_similarity(f"parameter_{name}") for name in ("gds", "gms")}
        return {**summary, **similarity, **self.result.to_dict()}


def demo(console: Console, out: Path, epochs: int = 4, seed: int = 0, quick: bool = False) -> None:
    """Trains, compares, prints and writes.

    Args:
        console: where progress and the table are shown.
        out: folder of results.json, results.csv and results.png.
        epochs: passes over the training images per run.
        seed: of the initial parameters and the order of the images.
        quick: a few images, one epoch, no figure worth looking at.
    """
    sizes = {"train_size": 128, "test_size": 64} if quick else {"train_size": 2560, "test_size": 1000}
    base = TrainConfig(
        data_options=sizes,
        epochs=1 if quick else epochs,
        lr=8e-3,
        seed=seed,
        optimizer_options={"fused": True},
        monitor_every=2 if quick else 20,
    )
    with console.status("preparing the digits"):
        data = multi_mnist(**sizes)
    baselines, contenders = compare(console, base, data, timing_rounds=2 if quick else 15)
    console.print(results_table(data, baselines, contenders))
    console.print("\n" + READING, highlight=False)
    write_results(out, base, data, baselines, contenders)
    console.print(f"written to {out}: results.json, results.csv, results.png", markup=False)


def demo_configs(base: TrainConfig) -> dict[str, TrainConfig]:
    """Label -> configuration of every method, at both levels where it works on gradients."""
    configs = {}
    for name in DEMO_METHODS:
        if METHODS[name].level == "gradient":
            configs[f"{name} (parameter)"] = replace(base, method=name, level="parameter")
            configs[f"{name} (feature)"] = replace(base, method=name, level="feature")
        else:
            configs[name] = replace(base, method=name)
    return configs


def compare(
    console: Console, base: TrainConfig, data: MultiTaskData, timing_rounds: int
) -> tuple[dict[str, TrainResult], list[Contender]]:
    """Trains the single-task networks (task -> result) and every method, and times the methods' steps."""
    singles = {task.name: replace(base, tasks=(task.name,), monitor_every=0) for task in data.tasks}
    configs = demo_configs(base)
    with progress_bar(console) as progress:
        steps = Trainer(base, data).total_steps
        bar = progress.add_task("", total=steps * (len(singles) + len(configs)))
        baselines = {
            name: _run(progress, bar, f"single task: {name}", config, data) for name, config in singles.items()
        }
        results = {label: _run(progress, bar, label, config, data) for label, config in configs.items()}
        progress.update(bar, description="timing steps")
        step_times = time_steps(configs, data, timing_rounds)
    single: Measures = {name: result.measures[name] for name, result in baselines.items()}
    contenders = []
    for label, result in results.items():
        changes = task_changes(result.measures, single, lower_is_better(data.tasks))
        delta = sum(changes.values()) / len(changes)
        contenders.append(Contender(label, result, changes, delta, step_times[label]))
    return baselines, contenders


def time_steps(configs: dict[str, TrainConfig], data: MultiTaskData, rounds: int) -> dict[str, float]:
    """Step time of each configuration relative to equal weighting, on one batch and without the monitor."""
    trainers = {label: Trainer(replace(config, monitor_every=0), data) for label, config in configs.items()}
    batch = next(data.train.batches(configs[REFERENCE].batch_size))
    with cpu_threads(configs[REFERENCE].threads):
        return relative_step_times(
            {
                label: partial(trainer.step, [[batch] * trainer.parts.method.batches])
                for label, trainer in trainers.items()
            },
            REFERENCE,
            rounds,
        )


def results_table(data: MultiTaskData, baselines: dict[str, TrainResult], contenders: list[Contender]) -> Table:
    """The table that the demo prints; fits 80 columns."""
    table = Table(
        title="Multi-MNIST+, test split", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False
    )
    table.add_column("method", style="bold", no_wrap=True)
    lower = lower_is_better(data.tasks)
    for task in data.tasks:
        for metric in baselines[task.name].measures[task.name]:
            table.add_column(f"{task.name}\n{metric}\n{'↓' if metric in lower else '↑'}", justify="right", no_wrap=True)
    for column in ("Delta\nMTL %\n↑", "step\n/EW\n↓", "GDS", "GMS"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row("single task", *_cells(baselines.values()), "", "", "", "", end_section=True)
    best = max(contender.delta for contender in contenders)
    for contender in contenders:
        delta = f"{100 * contender.delta:+.1f}"
        table.add_row(
            contender.label,
            *_cells([contender.result]),
            f"[green]{delta}[/green]" if contender.delta == best else delta,
            f"{contender.step_time:.2f}",
            f"{contender.result.mean_similarity('parameter_gds'):+.2f}",
            f"{contender.result.mean_similarity('parameter_gms'):.2f}",
        )
    return table


def _cells(results: Iterable[TrainResult]) -> Iterator[str]:
    """The measures as the table shows them: percentages with one digit, the rest with three."""
    for result in results:
        for metrics in result.measures.values():
            yield from (f"{value:.1f}" if "%" in metric else f"{value:.3f}" for metric, value in metrics.items())


def write_results(
    out: Path, base: TrainConfig, data: MultiTaskData, baselines: dict[str, TrainResult], contenders: list[Contender]
) -> None:
    """Writes results.json, results.csv and results.png."""
    content = {
        "versions": versions(),
        "config": asdict(base),
        "single_task": {name: result.to_dict() for name, result in baselines.items()},
        "methods": [contender.to_dict() for contender in contenders],
    }
    write_json(out / "results.json", content)
    write_csv(out / "results.csv", list(_csv_rows(baselines, contenders)))
    figure = comparison_figure(
        {contender.label: contender.changes for contender in contenders},
        {contender.label: contender.step_time for contender in contenders},
        {contender.label: _curves(contender.result) for contender in contenders},
        {name: _curves(result)[name] for name, result in baselines.items()},
        {task.name: next(iter(baselines[task.name].measures[task.name])) for task in data.tasks},
    )
    write_atomically(out / "results.png", lambda file: figure.savefig(file, format="png", dpi=150))


def _run(progress: Progress, bar: TaskID, label: str, config: TrainConfig, data: MultiTaskData) -> TrainResult:
    progress.update(bar, description=label)
    return train_run(config, data, on_progress=lambda step: progress.advance(bar))


def _curves(result: TrainResult) -> dict[str, list[float]]:
    """Task -> its first metric after each epoch."""
    tasks = result.measures
    return {task: [next(iter(record.measures[task].values())) for record in result.epochs] for task in tasks}


def _csv_rows(baselines: dict[str, TrainResult], contenders: list[Contender]) -> Iterator[dict[str, Any]]:
    """One row per method, task and metric."""
    for task, result in baselines.items():
        for metric, value in result.measures[task].items():
            row = {"method": "single task", "task": task, "metric": metric, "value": value}
            yield {**row, "change": 0.0, "delta_mtl": 0.0, "step_time": "", "gds": "", "gms": ""}
    for contender in contenders:
        summary = {
            "delta_mtl": contender.delta,
            "step_time": contender.step_time,
            "gds": contender.result.mean_similarity("parameter_gds"),
            "gms": contender.result.mean_similarity("parameter_gms"),
        }
        for task, metrics in contender.result.measures.items():
            for metric, value in metrics.items():
                row = {"method": contender.label, "task": task, "metric": metric, "value": value}
                yield {**row, "change": contender.changes[task], **summary}


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo_results"), help="folder of the results")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training images per run")
    parser.add_argument("--seed", type=int, default=0, help="of the initial parameters and the order of the images")
    parser.add_argument("--quick", action="store_true", help="a few seconds on a few images, to see that it works")


COMMAND = Command(
    "demo",
    "[options]",
    "compare all methods on real data",
    """\
Trains one network per task, then one network for all tasks with each method, on images of two MNIST digits: two
classifications, a segmentation and a regression. Prints a table and writes results.json, results.csv and results.png.

examples:
  mtl-ext demo
  mtl-ext demo --seed 1 --out demo_seed1
""",
    lambda console, options: demo(console, options.out, options.epochs, options.seed, options.quick),
    _arguments,
)
