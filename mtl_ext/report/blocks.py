"""What a report is made of. All texts are plain: whatever they hold is shown as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mtl_ext.methods.base import check_choice

# What a cell's look says. "hint": as the other, but not certain; "bar": a length.
TONES = (
    "",
    "better",
    "better-hint",
    "worse",
    "worse-hint",
    "muted",
    "bar",
    "yes",
    "no",
    "unknown",
)


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it shows.
        tone: one of TONES.
        detail: smaller text behind it, such as a deviation.
        order: what its column is sorted by; None: the text.
    """

    text: str
    tone: str = ""
    detail: str = ""
    order: float | None = None

    def __post_init__(self) -> None:
        """Refuses an unknown tone.

        Raises:
            ValueError: naming it.
        """
        check_choice("tone", self.tone, TONES)


@dataclass(frozen=True)
class Table:
    """A table whose rows a reader can sort by any column.

    Attributes:
        columns: their heads; the first column heads the rows.
        rows: the cells, a row as long as `columns`; text alone is a plain cell.
        caption: what it shows and how to read it.
        wrap: let texts break into lines (tables of sentences), instead of scrolling sideways (tables of numbers).
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    wrap: bool = False

    def __post_init__(self) -> None:
        """Refuses rows that do not fit the columns.

        Raises:
            ValueError: naming the row.
        """
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} has {len(row)} cells, expected {len(self.columns)}: {list(self.columns)}"
                )

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every cell a Cell."""
        return [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in self.rows]


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        image: an SVG file, as :func:`mtl_ext.report.svg` makes it.
        caption: what it shows; also read out where the drawing cannot be seen.
        width: the least width in CSS pixels at which it can be read; narrower screens scroll.
        largest: the width in CSS pixels beyond which it is not enlarged; None: the page's.
    """

    image: bytes
    caption: str
    width: int = 640
    largest: int | None = None


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names and values, such as the settings of a study."""

    items: Mapping[str, str]


Block = Table | Figure | Prose | Bullets | Facts


@dataclass(frozen=True)
class Section:
    """A part of a report with a heading; the contents link to it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        title: its heading.
        lead: the paragraphs before the contents: what was asked and what came out.
        sections: the parts.
        footer: how it was made.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section] = field(default_factory=list)
    footer: str = ""
