"""Numbers that papers print, one data file per paper."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

# Half a unit of the last printed digit: what rounding may have taken.
HALF_UNIT = 0.0005


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


def load_published(study: str) -> dict[str, Any]:
    """The data file of a study's paper."""
    text = (resources.files("mtl_ext.studies") / "published" / f"{study}.yaml").read_text()
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def change_range(value: float, reference: float) -> tuple[float, float]:
    """The least and the largest relative change that two rounded numbers allow."""
    low = (value - HALF_UNIT) / (reference + HALF_UNIT) - 1
    high = (value + HALF_UNIT) / (reference - HALF_UNIT) - 1
    return low, high


def arrow_fits(arrow: str, low: float, high: float, threshold: float) -> bool:
    """Whether a change between two bounds may be marked u (up), d (down) or = (neither), at a threshold."""
    allowed = {"u": high > threshold, "d": low < -threshold, "=": low <= threshold and high >= -threshold}
    return allowed[arrow]
