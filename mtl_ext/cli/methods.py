"""`mtl-ext methods`: what there is to compare."""

import inspect
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mtl_ext.cli.command import Command
from mtl_ext.methods import METHODS, Method

# Heads run backward once per task in every method; what differs is the shared part, the trunk.
TITLES = {
    "loss": "Methods on losses: 1 backward pass of the trunk in a step",
    "gradient": "Methods on gradients: K backward passes of the trunk, or 1 at feature level",
}
# What most methods take, or the trainer hands over.
COMMON = ("num_tasks", "generator", "seed", "reduction", "nonfinite", "weight_heads")
CAPTION = """\
Options: --method_options.NAME VALUE of mtl-ext train. Besides their own, all methods take nonfinite (raise, skip or \
propagate), all but {without_reduction} reduction (sum or mean), those on gradients but {without_weight_heads} \
weight_heads (True or False), random ones seed."""


def methods(console: Console) -> None:
    """Prints a table of the methods for each level, from their classes."""
    for level, title in TITLES.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=box.HORIZONTALS, show_lines=True)
        table.add_column("method", style="bold", no_wrap=True)
        table.add_column("what it does, paper", ratio=3)
        table.add_column("options of its own", ratio=2)
        for name in at_level(level):
            method = METHODS[name]
            what = Text(" ".join([summary(method), *extras(method)]))
            table.add_row(name, what, ", ".join(options(method)))
        console.print(table)
    without_reduction = listed([name for name in METHODS if "reduction" not in parameters(METHODS[name])])
    without_heads = listed([name for name in at_level("gradient") if "weight_heads" not in parameters(METHODS[name])])
    caption = CAPTION.format(without_reduction=without_reduction, without_weight_heads=without_heads)
    console.print(caption, highlight=False)


def at_level(level: str) -> list[str]:
    """The names of the methods that act on losses, or on gradients."""
    return [name for name, method in METHODS.items() if method.level == level]


def summary(method: type[Method]) -> str:
    """The first paragraph of a method's docstring, without markup."""
    return " ".join(inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0].replace("``", "").split())


def extras(method: type[Method]) -> list[str]:
    """What a step needs besides the backward passes of the level."""
    needs = {
        f"All passes for {method.batches} batches.": method.batches > 1,
        "K more passes at parameter level.": method.second_derivatives,
        "A forward pass after the step.": method.second_look,
        "Validation after each epoch.": method.wants_performance,
        "More passes, on other data too.": method.bilevel,
    }
    return [text for text, needed in needs.items() if needed]


def parameters(method: type[Method]) -> dict[str, inspect.Parameter]:
    """What a method's constructor takes."""
    return dict(inspect.signature(method).parameters)


def options(method: type[Method]) -> list[str]:
    """Names, and defaults where there are any, of what a method's constructor takes of its own."""
    own = [parameter for name, parameter in parameters(method).items() if name not in COMMON]
    return [p.name if p.default in (p.empty, None) else f"{p.name}={p.default}" for p in own]


def listed(names: Sequence[str]) -> str:
    """``A, B and C``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


COMMAND = Command(
    "methods",
    "",
    "list the methods",
    """\
Lists the methods: where each acts, what a step costs in backward passes, and what it does.

example:
  mtl-ext methods
""",
    lambda console, options: methods(console),
)
