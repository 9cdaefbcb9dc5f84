"""`mtl-ext make-data`: generated samples in the files of a published data set."""

from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar
from mtl_ext.data.generators import GENERATORS
from mtl_ext.data.make_data import DataPlan, make_data, plan_data
from mtl_ext.data.processes import available_cpus


def make(console: Console, plan: DataPlan, out: Path, workers: int, overwrite: bool) -> None:
    """Makes a data set and says what was made.

    Args:
        console: where progress and the result are shown.
        plan: what to make.
        out: the folder.
        workers: processes.
        overwrite: replace a data set that the folder holds.

    Raises:
        FileExistsError: the folder is taken.
    """
    with progress_bar(console) as progress:
        bar = progress.add_task(f"{plan.generator} as {plan.layout}", total=sum(plan.extent.splits.values()))
        make_data(plan, out, workers, overwrite, lambda count: progress.advance(bar, count))
    parts = " and ".join(f"{count} {split}" for split, count in plan.extent.splits.items())
    size = f" of {plan.extent.size[0]} x {plan.extent.size[1]}" if plan.extent.size else ""
    console.print(f"{parts} samples{size} written to {out}", markup=False, highlight=False)


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("generator", choices=list(GENERATORS), help="what to generate")
    parser.add_argument("--layout", type=str, required=True, help="the published data set whose files to write")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int | None, help="training samples")
    parser.add_argument("--val", type=int | None, help="validation samples, where the layout has a third split")
    parser.add_argument("--test", type=int | None, help="test samples: those of the layout's last split")
    parser.add_argument("--height", type=int | None, help="of the images, in pixels")
    parser.add_argument("--width", type=int | None, help="of the images, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of all samples")
    parser.add_argument("--workers", type=int, default=available_cpus(), help="processes that generate and write")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that the folder holds")


def _run(console: Console, options: Any) -> None:
    names = ("generator", "layout", "train", "val", "test", "height", "width", "seed")
    plan = plan_data(**{name: options[name] for name in names})
    make(console, plan, options.out, options.workers, options.overwrite)


_LAYOUTS = "\n".join(f"layouts of {name}: {', '.join(entry.layouts)}" for name, entry in GENERATORS.items())

COMMAND = Command(
    "make-data",
    "GENERATOR --layout LAYOUT --out DIR [options]",
    "generate a data set in a published layout",
    f"""\
Generates a data set and writes it in the very files of a published one, labels exact, so that loaders and pipelines
run without a download. Sizes not given are the published ones. Interrupted, the same command goes on where it was;
the files do not depend on the number of workers.

{_LAYOUTS}

examples:
  mtl-ext make-data scenes --layout nyuv2 --out data/nyuv2
  mtl-ext make-data faces --layout celeba --out data/faces --train 2000 --val 200 --test 500
  mtl-ext make-data scenes --layout nyuv2 --out data/small --train 80 --test 20 --height 96 --width 128 --seed 1
""",
    _run,
    _arguments,
)
