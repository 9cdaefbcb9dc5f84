"""Numbers that papers print, one data file per paper, and whether they follow from one another."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import yaml

from mtl_ext.methods.base import check_choice
from mtl_ext.metrics import task_changes
from mtl_ext.studies.changes import Column

# Half a unit of the last printed digit: what rounding may have taken.
HALF_UNIT = 0.0005
# The same for relative changes, which are printed in percent with two digits.
CHANGE_HALF_UNIT = 0.005
DELTA = "Δ_MTL"


@dataclass(frozen=True)
class Contradiction:
    """An entry of a table that does not follow from another, rounding allowed for.

    Attributes:
        table: where it stands.
        row: the row.
        column: the column.
        printed: what the paper prints.
        recomputed: what follows.
    """

    table: str
    row: str
    column: str
    printed: str
    recomputed: str


@dataclass(frozen=True)
class PublishedColumn(Column):
    """A metric of a task as a paper prints it; task and metric have the names that they have here.

    Attributes:
        digits: printed behind the point.
        factor: the paper's number is this times the value in the unit of the metric here.
    """

    digits: int
    factor: float = 1.0


@dataclass(frozen=True)
class PublishedRow:
    """A row of a paper's table.

    Attributes:
        values: one per column.
        std: their standard deviations over seeds, None where there is none; empty if the table has none.
        changes: task -> printed change against the reference in percent; without those that cannot be read.
        delta: printed Δ_MTL in percent, None if there is none.
        printed: False for a row that the table does not show but its Δ_MTL refers to.
    """

    values: tuple[float, ...]
    std: tuple[float | None, ...] = ()
    changes: Mapping[str, float] = field(default_factory=dict)
    delta: float | None = None
    printed: bool = True


@dataclass(frozen=True)
class PublishedTable:
    """A paper's table of rows (methods) and columns (metrics).

    Attributes:
        source: its number and page.
        columns: the metrics.
        rows: method as the paper calls it -> its numbers.
        reference: the row that relative changes refer to, None where there are none.
    """

    source: str
    columns: tuple[PublishedColumn, ...]
    rows: Mapping[str, PublishedRow]
    reference: str | None = None

    def changes(self, row: str, shift: int = 0) -> dict[str, float]:
        """Task -> change of a row against the reference in percent, as it follows from the values.

        Args:
            row: the row.
            shift: 0 for the printed values; 1 and -1 for the largest and the smallest change that rounding allows.

        Raises:
            ValueError: the table has no reference.
        """
        if self.reference is None:
            raise ValueError(f"{self.source} has no reference: nothing to take changes against")
        values: dict[str, dict[str, float]] = {}
        baseline: dict[str, dict[str, float]] = {}
        for column, value, single in zip(
            self.columns, self.rows[row].values, self.rows[self.reference].values, strict=True
        ):
            moved = shift * 0.5 * 10**-column.digits * (1 if column.higher_is_better else -1)
            values.setdefault(column.task, {})[column.metric] = value + moved
            baseline.setdefault(column.task, {})[column.metric] = single - moved
        lower = {column.metric for column in self.columns if not column.higher_is_better}
        return {task: 100 * change for task, change in task_changes(values, baseline, lower).items()}

    def delta(self, row: str, shift: int = 0) -> float:
        """Δ_MTL of a row in percent, as it follows from the values; see :meth:`changes`."""
        return statistics.fmean(self.changes(row, shift).values())


@dataclass(frozen=True)
class PublishedClaim:
    """What a paper says.

    Attributes:
        text: in its words.
        reference: where.
        against: numbers of the paper itself that contradict it; empty if none do.
    """

    text: str
    reference: str
    against: str = ""


def load_published(study: str) -> dict[str, Any]:
    """The data file of a study's paper."""
    text = (resources.files("mtl_ext.studies") / "published" / f"{study}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def published_tables(study: str) -> dict[str, PublishedTable]:
    """Name -> table, all that a paper's data file has, in its order."""
    content = load_published(study)["tables"]
    return {name: _table(entry) for name, entry in content.items()}


def published_table(study: str, name: str) -> PublishedTable:
    """A table of a paper.

    Args:
        study: ``"dgr"``, ``"ial"`` or ``"saal"``.
        name: as the data file has it, such as ``"table_2_split"``.

    Raises:
        ValueError: there is none of that name.
    """
    tables = published_tables(study)
    check_choice("name", name, tuple(tables))
    return tables[name]


def published_claims(study: str) -> list[PublishedClaim]:
    """What a paper says, in its order."""
    return [PublishedClaim(**entry) for entry in load_published(study)["claims"]]


def published_notes(study: str) -> list[str]:
    """What a reader of a paper's tables has to know: entries that are not certain, tables that disagree."""
    return list(load_published(study)["notes"])


def delta_contradictions(table: PublishedTable) -> list[Contradiction]:
    """Printed relative changes and Δ_MTL that do not follow from their row's values, rounding allowed for."""
    found = []
    for name, row in table.rows.items():
        if name == table.reference or (row.delta is None and not row.changes):
            continue
        bounds = [table.changes(name, shift) for shift in (-1, 0, 1)]
        entries = [(f"change of {task}", row.changes[task], [b[task] for b in bounds]) for task in row.changes]
        if row.delta is not None:
            entries.append((DELTA, row.delta, [table.delta(name, shift) for shift in (-1, 0, 1)]))
        for column, printed, (low, middle, high) in entries:
            if not low - CHANGE_HALF_UNIT <= printed <= high + CHANGE_HALF_UNIT:
                follows = f"{middle:+z.2f}% ({low:+z.2f}% to {high:+z.2f}%)"
                found.append(Contradiction(table.source, name, column, f"{printed:+z.2f}%", follows))
    return found


def change_range(value: float, reference: float) -> tuple[float, float]:
    """The least and the largest relative change that two rounded numbers allow."""
    low = (value - HALF_UNIT) / (reference + HALF_UNIT) - 1
    high = (value + HALF_UNIT) / (reference - HALF_UNIT) - 1
    return low, high


def arrow_fits(arrow: str, low: float, high: float, threshold: float) -> bool:
    """Whether a change between two bounds may be marked u (up), d (down) or = (neither), at a threshold."""
    allowed = {"u": high > threshold, "d": low < -threshold, "=": low <= threshold and high >= -threshold}
    return allowed[arrow]


def _table(entry: Mapping[str, Any]) -> PublishedTable:
    columns = tuple(
        PublishedColumn(
            column["task"],
            column["metric"],
            {"higher": True, "lower": False}[column["better"]],
            column["digits"],
            column.get("factor", 1.0),
        )
        for column in entry["columns"]
    )
    rows = {name: _row(row, columns) for name, row in entry["rows"].items()}
    return PublishedTable(entry["source"], columns, rows, entry.get("reference"))


def _row(entry: Mapping[str, Any], columns: tuple[PublishedColumn, ...]) -> PublishedRow:
    tasks = list(dict.fromkeys(column.task for column in columns))
    printed = zip(tasks, entry["changes"], strict=True) if "changes" in entry else ()
    return PublishedRow(
        tuple(entry["values"]),
        tuple(entry.get("std", ())),
        {task: change for task, change in printed if change is not None},
        entry.get("delta"),
        entry.get("printed", True),
    )
