"""What the commands share: versions, a progress bar, files of results."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtl_ext.files import write_csv, write_json
from mtl_ext.versions import versions

__all__ = ["progress_bar", "versions", "write_csv", "write_json"]


def progress_bar(console: Console) -> Progress:
    """A bar with a label in ``description``, elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
