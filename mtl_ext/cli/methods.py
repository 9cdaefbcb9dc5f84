"""`mtl-ext methods`: what there is to compare."""

import inspect

from rich.console import Console
from rich.table import Table

from mtl_ext.methods import METHODS

# Heads run backward once per task in every method; what differs is the shared part.
BACKWARDS = {"loss": "1", "gradient": "K, or 1 at feature level"}


def methods(console: Console) -> None:
    """Prints a table of the methods, from their classes."""
    table = Table(title="Methods", title_justify="left")
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("acts on")
    table.add_column("trunk backwards", no_wrap=True)
    table.add_column("what it does")
    for name, method in METHODS.items():
        summary = inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0]
        passes = BACKWARDS[method.level]
        if method.batches > 1:
            passes = passes.replace("K", f"{method.batches} K")
        table.add_row(name, method.level, passes, " ".join(summary.replace("``", "").split()))
    console.print(table)
