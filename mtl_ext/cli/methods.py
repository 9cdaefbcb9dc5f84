"""`mtl-ext methods`: what there is to compare."""

import inspect
import re

from rich.console import Console
from rich.table import Table

from mtl_ext.methods import METHODS, Method

# Heads run backward once per task in every method; what differs is the shared part.
BACKWARDS = {"loss": "1", "gradient": "K, or 1 at feature level"}
# Two backward passes and one in forward mode (or two forward passes) look ahead.
LOOK_AHEAD = "; 3 more passes for the weights"
PAPER = re.compile(r"([A-ZÀ-Þ][\w'&., -]*?\b(?:19|20)\d\d)")
# What every method takes, or the trainer hands over.
COMMON = ("num_tasks", "generator", "seed", "nonfinite", "weight_heads")


def methods(console: Console) -> None:
    """Prints a table of the methods, from their classes."""
    table = Table(title="Methods", title_justify="left", caption_justify="left", show_lines=True)
    table.caption = (
        "Options: --method_options.NAME VALUE of mtl-ext train. Every method also takes nonfinite=, those on gradients "
        "weight_heads=, random ones seed= and generator=."
    )
    for name in ("method", "acts on"):
        table.add_column(name, style="bold" if name == "method" else "", no_wrap=True)
    table.add_column("trunk backwards")
    table.add_column("paper")
    table.add_column("what it does")
    table.add_column("options")
    for name, method in METHODS.items():
        cost = BACKWARDS[method.level] + (f", of {method.batches} batches" if method.batches > 1 else "")
        cost += LOOK_AHEAD * method.bilevel
        table.add_row(name, method.level, cost, paper(method), summary(method), ", ".join(options(method)))
    console.print(table)


def summary(method: type[Method]) -> str:
    """The first paragraph of a method's docstring, without markup and without its paper."""
    text = " ".join(inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0].replace("``", "").split())
    return re.sub(r" \([^()]*(?:19|20)\d\d[^()]*\)", "", text, count=1)


def paper(method: type[Method]) -> str:
    """Authors and year as the docstring gives them first."""
    found = PAPER.search(inspect.cleandoc(method.__doc__ or "").partition("Args:")[0])
    return found[1] if found else "-"


def options(method: type[Method]) -> list[str]:
    """Names and defaults of what a method's constructor takes of its own."""
    parameters = inspect.signature(method).parameters.values()
    return [
        parameter.name if parameter.default is parameter.empty else f"{parameter.name}={parameter.default!r}"
        for parameter in parameters
        if parameter.name not in COMMON and parameter.kind is not parameter.VAR_KEYWORD
    ]
