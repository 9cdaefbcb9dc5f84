"""What a step with auxiliary tasks costs: a half-shared ResNet-50 and three dense tasks, relative to equal weighting.

    python -m bench.auxiliary [--quick] [--width 16] [--size 96] [--batch 4] [--rounds 5] [--threads 1]

The steps are the trainer's own. SAAL_e and SAAL_w have all six self-auxiliary tasks, SAAL_ew half of them; the paper's
SAAL_e and SAAL_ew have those that enumeration found useful. Beside our numbers: the paper's (SAAL, Table 4, NYUv2), and
what we set ourselves.
"""

import argparse
import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console

from bench import records
from bench.records import Record, verdict
from bench.timing import wait_until_quiet
from mtl_ext.cli.runtime import runtime_rows, runtime_table
from mtl_ext.data import MemorySplit, MultiTaskData, Task
from mtl_ext.methods import METHODS
from mtl_ext.trainers import TrainConfig, Trainer, cpu_threads, relative_step_times

# label -> (method, its options, self-auxiliary tasks); the first task is primary where one has to be.
HALF = ("depth->seg", "normals->seg", "seg->depth")
ROWS: dict[str, tuple[str, dict[str, object], tuple[str, ...]]] = {
    "EW": ("EW", {}, ()),
    "AutoLambda": ("AutoLambda", {}, ()),
    "AutoLambda, shared step": ("AutoLambda", {"shared_step": True}, ()),
    "SAAL_e": ("SAALe", {}, ("all",)),
    "SAAL_e, half": ("SAALe", {}, HALF),
    "SAAL_w": ("SAALw", {}, ("all",)),
    "SAAL_w, fd": ("SAALw", {"mode": "fd"}, ("all",)),
    "SAAL_w, shared step": ("SAALw", {"shared_step": True}, ("all",)),
    "SAAL_ew": ("SAALw", {}, HALF),
    "SAAL_ew, shared step": ("SAALw", {"shared_step": True}, HALF),
    "SAAL_ew, shared step, fd": ("SAALw", {"shared_step": True, "mode": "fd"}, HALF),
    "IAL": ("IAL", {"primary": "seg"}, ()),
    "GCS": ("GCS", {"primary": "seg"}, ()),
    "OLAUX": ("OLAUX", {"primary": "seg"}, ()),
}
# What the first word of a label is compared with.
PUBLISHED = {"EW": 1.0, "AutoLambda": 4.24, "SAAL_e": 1.41, "SAAL_w": 6.84, "SAAL_ew": 4.87}
TARGETS = {"AutoLambda": 3.5, "SAAL_e": 1.35, "SAAL_w": 5.0, "SAAL_ew": 3.9}


def make_data(size: int, batch: int) -> MultiTaskData:
    """One batch of noise with NYUv2's tasks: 13 classes, a depth and a normal per pixel."""
    tasks = (
        Task("seg", "pixels", 13, torch.nn.functional.cross_entropy, ()),
        Task("depth", "pixels", 1, torch.nn.functional.l1_loss, ()),
        Task("normals", "pixels", 3, lambda out, target: 1 - (out * target).sum(1).mean(), ()),
    )
    draw = functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    targets = {
        "seg": draw(batch, 13, size, size).argmax(1),
        "depth": draw(batch, 1, size, size),
        "normals": torch.nn.functional.normalize(draw(batch, 3, size, size)),
    }
    split = MemorySplit(draw(batch, 3, size, size), targets)
    return MultiTaskData(tasks, split, split)


def make_steps(width: int, size: int, batch: int) -> dict[str, Callable[[], object]]:
    """Label -> one step of the trainer, on one batch."""
    data = make_data(size, batch)
    base = TrainConfig(
        model="half_shared",
        model_options={"depth": 50, "width": width, "dilated": True},
        optimizer="SGD",
        optimizer_options={"momentum": 0.9, "weight_decay": 1e-4},
        lr=1e-2,
        batch_size=batch,
        monitor_every=0,
    )
    steps: dict[str, Callable[[], object]] = {}
    for label, (method, options, auxiliaries) in ROWS.items():
        if method in METHODS:
            config = replace(base, method=method, method_options=options, self_auxiliaries=auxiliaries)
            trainer = Trainer(config, data)
            item = next(trainer.step.batches(torch.Generator().manual_seed(0)))
            steps[label] = functools.partial(trainer.step, item)
    return steps


def main() -> None:
    """Times, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rounds of small images")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if options.quick:
        options.size, options.rounds = 32, 2
    busy = wait_until_quiet(options.wait)
    with cpu_threads(options.threads):
        steps = make_steps(options.width, options.size, options.batch)
        times = relative_step_times(steps, "EW", options.rounds, repeats=1)
    console = Console()
    console.print(
        f"half-shared ResNet-50 of width {options.width}, batch {options.batch} at {options.size}x{options.size}"
    )
    published = {label: PUBLISHED[name] for label in times if (name := label.partition(",")[0]) in PUBLISHED}
    console.print(runtime_table(runtime_rows(times, published, "paper")))
    found = []
    for label, value in times.items():
        name = label.partition(",")[0]
        wanted = f"<={TARGETS[name]}" if name in TARGETS else ""
        what = f"{label} batch {options.batch} at {options.size}x{options.size}"
        found.append(
            Record(
                "auxiliary",
                what,
                impl="method",
                threads=options.threads,
                K=3,
                quantity="x EW step",
                value=value,
                target=wanted,
                verdict=verdict(value, wanted) if wanted else "",
                busy_cores=busy,
            )
        )
        if wanted:
            print(f"{label:24} {value:5.2f}  target {wanted} {found[-1].verdict}")
    print(f"written to {records.write('auxiliary', found)}")
    records.finish(found)


if __name__ == "__main__":
    main()
