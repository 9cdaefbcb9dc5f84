"""`mtl-ext make-data`: generated samples in the files of a published data set."""

from pathlib import Path

from rich.console import Console

from mtl_ext.cli.report import progress_bar
from mtl_ext.data.make_data import DataPlan, make_data


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
