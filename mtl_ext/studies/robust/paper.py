"""The paper's own numbers: what follows from them, and what does not."""

from typing import Any

from mtl_ext.studies.published import Contradiction, arrow_fits, change_range, load_published
from mtl_ext.studies.robust.outcomes import THRESHOLD
from mtl_ext.studies.robust.protocol import rep

# Variants in one ranking of the paper's Table 3, the baseline left out: its values are multiples of 1 / (21 * 10).
RANKED = 21
# The dash that the paper, and Table 1 here, print for neither.
NO_ARROW = "\N{EN DASH}"


def paper() -> dict[str, Any]:
    """Tables 1 to 3, see published/robust.yaml."""
    return load_published("robust")


def absolute_arrows(content: dict[str, Any]) -> list[Contradiction]:
    """Arrows of Table 1 that contradict its caption: a difference of more than 0.01 from the baseline."""
    return _arrows(content, relative=False)


def relative_arrows(content: dict[str, Any]) -> list[Contradiction]:
    """Arrows of Table 1 that contradict a relative change of more than 1%."""
    return _arrows(content, relative=True)


def relative_changes(content: dict[str, Any]) -> list[Contradiction]:
    """Entries of Table 2 that do not follow from Table 1."""
    table = content["table_1"]["rows"]
    found = []
    for row, printed in content["table_2"]["rows"].items():
        for column, percent, value, reference in zip(
            content["metrics"], printed, table[rep(row)]["values"], table[row]["values"], strict=True
        ):
            low, high = change_range(value, reference)
            if not 100 * low - 0.05 <= percent <= 100 * high + 0.05:
                follows = f"{100 * low:+.1f}% to {100 * high:+.1f}%"
                found.append(Contradiction(content["table_2"]["source"], row, column, f"{percent:+.1f}%", follows))
    return found


def ranking_values(content: dict[str, Any]) -> list[Contradiction]:
    """Entries of Table 3 that are no share of the pairs of 21 methods."""
    pairs = RANKED * (RANKED - 1) // 2
    found = []
    for row, values in content["table_3"]["rows"].items():
        for column, value in zip(content["metrics"], values, strict=True):
            nearest = round(value * pairs) / pairs
            if abs(nearest - value) > 0.0005:
                found.append(Contradiction(content["table_3"]["source"], row, column, f"{value}", f"{nearest:.3f}"))
    return found


def winners(content: dict[str, Any]) -> list[str]:
    """The methods that Table 1 has above the baseline in every metric."""
    rows = content["table_1"]["rows"]
    baseline = rows[content["table_1"]["baseline"]]["values"]
    return [
        name
        for name, row in rows.items()
        if all(value > base for value, base in zip(row["values"], baseline, strict=True))
    ]


def top_three(content: dict[str, Any]) -> dict[str, int]:
    """Method -> in how many metrics Table 1 has it among the three best."""
    table = content["table_1"]
    rows = {name: row["values"] for name, row in table["rows"].items() if name != table["baseline"]}
    counts = dict.fromkeys(rows, 0)
    for column in range(len(content["metrics"])):
        third = sorted((values[column] for values in rows.values()), reverse=True)[2]
        for name, values in rows.items():
            counts[name] += values[column] >= third
    return counts


def _arrows(content: dict[str, Any], relative: bool) -> list[Contradiction]:
    table = content["table_1"]
    baseline = table["rows"][table["baseline"]]["values"]
    names = {"u": "↑", "d": "↓", "=": NO_ARROW}
    found = []
    for row, entry in table["rows"].items():
        arrows = entry.get("arrows", "")
        for column, value, base, arrow in zip(content["metrics"], entry["values"], baseline, arrows, strict=False):
            low, high = change_range(value, base) if relative else (value - base - 0.001, value - base + 0.001)
            if not arrow_fits(arrow, low, high, THRESHOLD):
                printed = f"{value:.3f} ({names[arrow]})"
                follows = f"{value - base:+.3f} from the baseline's {base:.3f}"
                found.append(Contradiction(table["source"], row, column, printed, follows))
    return found
