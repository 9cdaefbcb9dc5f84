"""A paper's numbers beside those of a study, flagged where the paper's do not add up."""

from collections.abc import Mapping, Sequence

from mtl_ext.report import Block, Bullets, Cell, Prose, Table
from mtl_ext.studies.published import (
    DELTA,
    Contradiction,
    PublishedColumn,
    PublishedTable,
    delta_contradictions,
    published_notes,
    published_tables,
)
from mtl_ext.studies.spread import Spread

# Row as the paper calls it -> name of a column, or DELTA -> our values; Δ_MTL as a fraction.
OurNumbers = Mapping[str, Mapping[str, Spread]]


def beside_table(table: PublishedTable, ours: OurNumbers) -> Table:
    """A paper's table, in its order, with ours behind every number that we have.

    Args:
        table: the paper's.
        ours: values in the units of the metrics here, which are converted to the paper's; rows and columns that the
            paper does not have are left out.
    """
    flagged = {entry.row for entry in delta_contradictions(table) if entry.column == DELTA}
    has_delta = any(row.delta is not None for row in table.rows.values())
    rows: list[list[Cell | str]] = []
    for name, row in table.rows.items():
        mine = ours.get(name, {})
        cells: list[Cell | str] = [name if row.printed else Cell(name, "muted", "not in the table")]
        cells += [
            Cell(f"{value:.{column.digits}f}", "", _here(mine.get(column.name), column), value)
            for column, value in zip(table.columns, row.values, strict=True)
        ]
        if has_delta:
            cells.append(_delta_cell(row.delta, table.delta(name) if name in flagged else None, mine.get(DELTA)))
        rows.append(cells)
    heads = [_head(column) for column in table.columns]
    caption = (
        f"{table.source}, as printed; behind it what was found here, mean ± deviation over seeds. ↑ ↓: more or less is "
        "better."
    )
    if flagged:
        caption += f" ≠: the printed {DELTA} does not follow from its row, rounding allowed for; behind it what does."
    return Table(("Method", *heads, *([f"{DELTA}, %"] if has_delta else [])), rows, caption)


def contradictions_table(found: Sequence[Contradiction], caption: str) -> Table:
    """Entries of a paper that do not follow."""
    rows = [[entry.row, entry.column, entry.table, entry.printed, entry.recomputed] for entry in found]
    return Table(("Row", "Column", "Where", "Printed", "Recomputed"), rows, caption)


def contradictions_blocks(study: str) -> list[Block]:
    """How far a paper's tables add up: each relative change that does not follow from its row, and what else is odd."""
    tables = published_tables(study).values()
    found = [entry for table in tables for entry in delta_contradictions(table)]
    rows = [row for table in tables for name, row in table.rows.items() if name != table.reference]
    printed = sum(len(row.changes) + (row.delta is not None) for row in rows)
    text = f"{len(found)} of the {printed} relative changes that the paper prints do not follow from their rows."
    caption = f"Changes and {DELTA} recomputed from the printed values; in brackets what rounding allows."
    return [Prose(text), contradictions_table(found, caption), Bullets(published_notes(study))]


def _head(column: PublishedColumn) -> str:
    unit = "" if column.factor == 1 else f" times {column.factor:g}"
    return f"{column.name}{unit} {'↑' if column.higher_is_better else '↓'}"


def _here(value: Spread | None, column: PublishedColumn) -> str:
    if value is None:
        return ""
    return f"here {value.text(column.digits, column.factor)} {value.detail(column.digits, column.factor)}".strip()


def _delta_cell(printed: float | None, follows: float | None, mine: Spread | None) -> Cell:
    details = [] if follows is None else [f"follows {follows:+z.2f}"]
    if mine is not None:
        details.append(f"here {mine.text(2, 100, sign=True)} {mine.detail(2, 100)}".strip())
    text = "" if printed is None else f"{printed:+z.2f}"
    return Cell(text if follows is None else f"{text} ≠", "" if follows is None else "no", ", ".join(details), printed)
