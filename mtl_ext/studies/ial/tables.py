"""Tables of the IAL study, in the paper's form."""

from collections.abc import Mapping, Sequence

from mtl_ext.report import Cell, Table
from mtl_ext.studies.ial.outcomes import Outcomes, time_ratio
from mtl_ext.studies.ial.protocol import AUXILIARY, SINGLE, UNIFORM
from mtl_ext.studies.ial.training import Presence
from mtl_ext.studies.published import DELTA, PublishedTable, published_table
from mtl_ext.studies.spread import Spread

# From this relative change on, cells are coloured.
THRESHOLD = 0.01
# Of Table II, by what recipes call the data that theirs stand for.
HOURS = ("NYUv2", "Cityscapes", "PASCAL-Context")


def benchmark_table(
    outcomes: Outcomes,
    rows: Sequence[str],
    caption: str,
    labels: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> Table:
    """Rows of methods, columns of primary tasks, and Delta_MTL against single tasks.

    Args:
        outcomes: of a data set.
        rows: those to show; rows without a finished seed are left out.
        caption: what the table shows.
        labels: row -> what the table calls it, where that is another name.
        without: tasks that Delta_MTL leaves out.
    """
    digits = {task: _digits(outcomes.value(SINGLE, task)) for task in outcomes.primary}
    shown: list[list[Cell | str]] = []
    for name in (SINGLE, *[row for row in rows if row != SINGLE]):
        if not outcomes.has(name, SINGLE):
            continue
        cells: list[Cell | str] = [(labels or {}).get(name, name)]
        for task in outcomes.primary:
            value, change = outcomes.value(name, task), outcomes.change(name, task)
            cells.append(Cell(value.text(digits[task]), _tone(change), value.detail(digits[task]), value.mean))
        cells.append("" if name == SINGLE else _percent(outcomes.delta(name, without=without)))
        shown.append(cells)
    of_some = f" without {', '.join(without)}" if without else ""
    return Table(("Method", *_heads(outcomes, outcomes.primary), f"{DELTA}{of_some}, %"), shown, caption)


def primary_table(outcomes: Outcomes, rows: Sequence[str], task: str, caption: str) -> Table:
    """Table IX: one primary task, and what the others reach in the same run."""
    tasks = [task, *[other for other in outcomes.primary if other != task]]
    shown: list[list[Cell | str]] = []
    for name in rows:
        if not outcomes.has(name, tasks=[task]):
            continue
        cells: list[Cell | str] = [name]
        for other in tasks:
            value = outcomes.value(name, other, task)
            cells.append(Cell(value.text(_digits(value)), "", value.detail(_digits(value)), value.mean))
        shown.append(cells)
    first, *others = _heads(outcomes, tasks)
    return Table(("Method", f"{first} (primary)", *others), shown, caption)


def auxiliaries_table(outcomes: Outcomes) -> Table:
    """What Fig. 1 shows by a picture: how well the auxiliary tasks are trained, and what the primary one has of it."""
    shown: list[list[Cell | str]] = []
    for name in AUXILIARY:
        if not outcomes.has(name, UNIFORM):
            continue
        cells: list[Cell | str] = [name]
        for primary in outcomes.primary:
            auxiliary = outcomes.auxiliary_change(name, UNIFORM, [primary])
            own = outcomes.change(name, primary, UNIFORM)
            cells += [_percent(own), _percent(auxiliary)]
        shown.append(cells)
    heads = [text for primary in outcomes.primary for text in (f"{primary} as primary", "its auxiliary tasks")]
    caption = (
        "Relative change in percent against Uniform with the same seed, positive where better: of each primary task, "
        "and as a mean of the other tasks in the same runs."
    )
    return Table(("Method", *heads), shown, caption)


def noise_table(outcomes: Outcomes, plain: Outcomes, rows: Mapping[str, str]) -> Table:
    """What noisy tasks change.

    Args:
        outcomes: with noisy tasks.
        plain: without.
        rows: row with noisy tasks -> the same without.
    """
    shown: list[list[Cell | str]] = []
    for name, base in rows.items():
        if outcomes.has(name, SINGLE) and plain.has(base, SINGLE):
            before, after, gain = plain.delta(base), outcomes.delta(name), outcomes.gain(name, plain, base)
            shown.append([name, _percent(before, toned=False), _percent(after, toned=False), _percent(gain)])
    caption = f"{DELTA} in percent without and with noisy tasks; the difference is taken seed by seed."
    return Table(("Method", "Without", "With", "Difference"), shown, caption)


def presence_table(found: Sequence[Presence]) -> Table:
    """Whether every auxiliary task trains the encoder under IAL."""
    rows: list[list[Cell | str]] = [
        [
            entry.task,
            entry.primary,
            Cell(
                f"{entry.share:.0%}",
                "better" if entry.share == 1 else "worse" if entry.share < 0.5 else "",
                "",
                entry.share,
            ),
            Cell(
                "never" if entry.first == 1 else f"after {entry.first:.0%}",
                "",
                "of the run" if entry.first < 1 else "",
                entry.first,
            ),
            f"{entry.mean:.3f}",
            f"{entry.largest:.3f}",
            f"{entry.sigma:.3f}",
            f"{entry.loss:.3f}",
        ]
        for entry in found
    ]
    heads = (
        "Auxiliary task",
        "Primary task",
        "Weight above 0",
        "First 0",
        "Mean f(sigma)",
        "Largest f(sigma)",
        "sigma at the end",
        "Loss at the end",
    )
    caption = (
        "Encoder weights f(sigma) = min(1, relu(1 - sigma)) of the auxiliary tasks under IAL, over the logged steps of "
        "all seeds. sigma² follows a task's loss: where a loss stays at 1 or above, sigma passes 1 and the task is "
        "left out of the encoder."
    )
    return Table(heads, rows, caption)


def runtime_table(
    times: Mapping[str, float], primary: Sequence[str], names: Sequence[str], about: Sequence[str]
) -> Table:
    """Step times relative to Uniform, beside the ratios of the paper's training hours, and those of SAAL's paper."""
    hours, saal = published_table("ial", "table_2"), published_table("saal", "table_4")
    column = next((HOURS.index(name) for name in about if name in HOURS), 0)
    theirs = {"Uniform": "Equal", "UW": "Uncertainty"}
    rows: list[list[Cell | str]] = []
    for name in names:
        here = time_ratio(times, name, primary)
        if here is None:
            continue
        other = theirs.get(name, name)
        rows.append(
            [
                name,
                Cell(f"{here:.2f}", "", "", here),
                _ratio(hours, name, UNIFORM, column),
                _ratio(saal, other, "Equal", min(column, 1)),
            ]
        )
    rows.sort(key=lambda row: row[1].order or 0.0 if isinstance(row[1], Cell) else 0.0)
    caption = (
        f"Time of a training step relative to {UNIFORM}, measured in turns on this machine; beside it the ratio of the "
        f"training hours in the paper's Table II ({HOURS[column]}) and what the paper of SAAL measures for the same "
        f"methods (its Table 4)."
    )
    return Table(("Method", "Here", "IAL's paper", "SAAL's paper"), rows, caption)


def _heads(outcomes: Outcomes, tasks: Sequence[str]) -> list[str]:
    """Names of the tasks' metrics, with the direction that is better."""
    columns = [outcomes.columns[task] for task in tasks]
    return [f"{column.name} {'↑' if column.higher_is_better else '↓'}" for column in columns]


def _digits(value: Spread) -> int:
    return 1 if abs(value.mean) >= 10 else 3


def _ratio(table: PublishedTable, row: str, reference: str, column: int) -> Cell:
    if row not in table.rows:
        return Cell("")
    value = table.rows[row].values[column] / table.rows[reference].values[column]
    return Cell(f"{value:.2f}", "", "", value)


def _percent(value: Spread, toned: bool = True) -> Cell:
    return Cell(value.text(1, 100, sign=True), _tone(value) if toned else "", value.detail(1, 100), value.mean)


def _tone(change: Spread) -> str:
    if not abs(change.mean) > THRESHOLD:
        return ""
    return ("better" if change.mean > 0 else "worse") + ("" if change.agree else "-hint")
