"""The runtime table: what a training step costs, relative to equal weighting."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

BAR = 24


def runtime_rows(
    times: Mapping[str, float], published: Mapping[str, float] | None = None, name: str = "published"
) -> list[dict[str, Any]]:
    """The table as rows, for :func:`mtl_ext.cli.report.write_csv`.

    Args:
        times: method -> step time relative to equal weighting, as
            :func:`mtl_ext.trainers.timing.relative_step_times` measures them.
        published: method -> the same from a paper, where it says it; adds a column.
        name: what that column is called.

    Returns:
        One dict per method, in the order of `times`: ``method``, ``step_time`` and, with `published`, that column,
        empty for a method that the paper does not have.

    Raises:
        ValueError: a time that is not above 0.
    """
    rows = []
    for method, time in times.items():
        if not time > 0:
            raise ValueError(f"the step time of {method!r} is {time}, expected a number above 0")
        row: dict[str, Any] = {"method": method, "step_time": time}
        rows.append(row if published is None else {**row, name: published.get(method, "")})
    return rows


def runtime_table(rows: Sequence[Mapping[str, Any]], reference: str = "EW") -> Table:
    """The table as people read it, with a bar per method; fits 80 columns.

    Args:
        rows: what :func:`runtime_rows` gives, at least one.
        reference: the method whose time is the unit.
    """
    table = Table(title="Time of a training step", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.add_column("method", style="bold", no_wrap=True)
    table.add_column(f"/{reference}", justify="right", no_wrap=True)
    extra = [column for column in rows[0] if column not in ("method", "step_time")]
    for column in extra:
        table.add_column(column, justify="right", style="dim")
    table.add_column("", no_wrap=True)
    longest = max(row["step_time"] for row in rows)
    for row in rows:
        cells = ["" if row[column] == "" else f"{row[column]:.2f}" for column in extra]
        bar = "█" * max(1, round(BAR * row["step_time"] / longest))
        table.add_row(row["method"], f"{row['step_time']:.2f}", *cells, f"[blue]{bar}[/blue]")
    return table
