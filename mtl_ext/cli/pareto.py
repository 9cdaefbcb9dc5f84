"""`mtl-ext pareto`: the methods on two losses whose Pareto front is known."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mtl_ext.cli.command import Command
from mtl_ext.cli.report import progress_bar, versions, write_json
from mtl_ext.files import write_atomically
from mtl_ext.methods import METHODS
from mtl_ext.pareto import STARTS, THEORY, Descent, Front, Outcome, Toy, descend, judge
from mtl_ext.pareto.figure import trajectory_figure
from mtl_ext.trainers import cpu_threads

Runs = dict[str, list[tuple[Descent, Outcome]]]

DEFAULT_METHODS = (
    "EW",
    "UW",
    "GradDrop",
    "MGDA",
    "PCGrad",
    "CAGrad",
    "IMTLG",
    "NashMTL",
    "FairGrad",
    "AlignedMTL",
    "UPGrad",
    "FAMO",
)
COLOURS = {"reached": "green", "no claim": "dim"}

# A paragraph a line: the console wraps them.
READING = """\
to front: distance of the end from the Pareto front, in parameters; the front is 14 long.
to theory: distance of the end from the nearest that theory names (in parameters), or, where it names every \
Pareto-stationary point, the shortest convex combination of the two gradients there, each relative to its largest norm \
on the front.
step: the largest relative deviation from what theory says about each step."""


def pareto(
    console: Console, out: Path, methods: Sequence[str], steps: int = 1000, seed: int = 0, scale: float = 0.1
) -> bool:
    """Descends, compares with theory, prints and writes.

    Args:
        console: where progress and the table are shown.
        out: folder of pareto.json and pareto.png.
        methods: their names.
        steps: per descent.
        seed: of random methods.
        scale: of the first loss.

    Returns:
        Whether every descent with a theory agrees with it.

    Raises:
        ValueError: a name that is no method, or none.
    """
    names = list(dict.fromkeys(methods))
    if not names:
        raise ValueError("methods is empty, expected names of methods")
    for name in names:
        if name not in METHODS:
            raise ValueError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    toy = Toy(scale)
    front = toy.front()
    runs: Runs = {name: [] for name in names}
    with progress_bar(console) as progress, cpu_threads(1):
        bar = progress.add_task("", total=len(names) * len(STARTS))
        for name, found in runs.items():
            progress.update(bar, description=name)
            theory = THEORY.get(name)
            for start in STARTS:
                descent = descend(toy, name, start, steps, None if theory is None else theory.options, seed)
                found.append((descent, judge(toy, front, descent, theory)))
                progress.advance(bar)
    console.print(theory_table(names))
    console.print()
    console.print(results_table(runs))
    console.print("\n" + READING, highlight=False)
    outcomes = [outcome for found in runs.values() for _, outcome in found if outcome.status != "no claim"]
    agreeing = sum(outcome.status == "reached" for outcome in outcomes)
    console.print(f"{agreeing} of {len(outcomes)} descents agree with theory")
    write_results(out, toy, front, runs, {"steps": steps, "seed": seed, "scale": scale})
    console.print(f"written to {out}: pareto.json, pareto.png", markup=False)
    return agreeing == len(outcomes)


def results_table(runs: Runs) -> Table:
    """The table that the command prints; fits 80 columns."""
    table = Table(title="Where descents end", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge = False
    table.add_column("method\n  from start", width=12, overflow="fold")
    for column in ("end", "loss 1", "loss 2", "to\nfront", "to\ntheory", "step"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name, found in runs.items():
        table.add_row(f"[bold]{name}[/bold]")
        for start, (_, outcome) in zip(STARTS, found, strict=True):
            colour = COLOURS.get(outcome.status, "red")
            table.add_row(
                "  {:.1f}, {:.1f}".format(*start),
                "{:.2f}, {:.2f}".format(*outcome.end),
                f"{outcome.losses[0]:.2f}",
                f"{outcome.losses[1]:.2f}",
                _residual(outcome.distance),
                _residual(outcome.end_residual),
                _residual(outcome.step_residual),
                f"[{colour}]{outcome.status}[/{colour}]",
            )
        table.add_section()
    return table


def theory_table(names: Sequence[str]) -> Table:
    """What is checked for each method."""
    table = Table(title="What theory says", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.show_edge = False
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column("a descent ends at")
    table.add_column("each step")
    for name in names:
        theory = THEORY.get(name)
        table.add_row(name, *(("(not checked)", "") if theory is None else (theory.end, theory.step)))
    return table


def write_results(out: Path, toy: Toy, front: Front, runs: Runs, settings: dict[str, float]) -> None:
    """Writes pareto.json and pareto.png."""
    methods = {}
    for name, found in runs.items():
        theory = THEORY.get(name)
        says = None if theory is None else {"end": theory.end, "step": theory.step, "options": dict(theory.options)}
        outcomes = [{"start": start, **asdict(outcome)} for start, (_, outcome) in zip(STARTS, found, strict=True)]
        methods[name] = {"theory": says, "descents": outcomes}
    some = slice(None, None, max(1, (len(front.losses) - 1) // 100))
    points = {"parameters": front.parameters[some].tolist(), "losses": front.losses[some].tolist()}
    write_json(out / "pareto.json", {"versions": versions(), **settings, "front": points, "methods": methods})
    figure = trajectory_figure(toy, front, runs, int(settings["steps"]))
    write_atomically(out / "pareto.png", lambda file: figure.savefig(file, format="png", dpi=150))


def _residual(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def _arguments(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=list[str] | Literal["all"],
        default=list(DEFAULT_METHODS),
        help="their names in brackets, or all: those whose theory is checked",
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each descent, at least 200")
    parser.add_argument("--seed", type=int, default=0, help="of random methods")
    parser.add_argument("--scale", type=float, default=0.1, help="of the first loss; 0.1 in Nash-MTL, 1 in CAGrad")
    parser.add_argument("--out", type=Path, default=Path("pareto_results"), help="folder of the results")
    parser.add_argument("--check", action="store_true", help="exit status 1 where a descent disagrees with theory")


def _run(console: Console, options: Any) -> int:
    names = list(THEORY) if options.methods == "all" else options.methods
    agrees = pareto(console, options.out, names, options.steps, options.seed, options.scale)
    return 1 if options.check and not agrees else 0


COMMAND = Command(
    "pareto",
    "[options]",
    "compare where methods end with theory",
    """\
Minimises two losses of two parameters, whose Pareto front is known, from five starts with each method (the problem of
the CAGrad and Nash-MTL papers), and compares the ends and the steps with what theory says of the method: that it ends
at a Pareto-stationary point, or at the minimum of the sum of the losses, that no step conflicts with a gradient, ...
Prints a table and writes pareto.json and pareto.png, the trajectories. It takes about a minute.

With more than the default steps, which are then smaller, some methods stay in a valley above the front, where the
losses are not smooth and no theory holds; their status is "missed".

examples:
  mtl-ext pareto
  mtl-ext pareto --methods '[MGDA,NashMTL]' --steps 3000 --out pareto_long
  mtl-ext pareto --methods all --check              (exit status 1 where a descent disagrees with theory)
""",
    _run,
    _arguments,
)
