"""Tables of the robust study."""

from collections.abc import Mapping

from mtl_ext.report import Cell, Table
from mtl_ext.studies.robust.outcomes import INDICATORS, THRESHOLD, Outcomes, chance_level
from mtl_ext.studies.robust.paper import NO_ARROW
from mtl_ext.studies.robust.protocol import BASELINE, TWO_LEVELS, rep
from mtl_ext.studies.spread import Spread


def benchmark_table(outcomes: Outcomes) -> Table:
    """Table 1: every variant's metrics with arrows, and the mean change; best first."""
    baseline = {column: outcomes.value(BASELINE, column) for column in outcomes.columns}
    digits = {column: 1 if abs(value.mean) >= 10 else 3 for column, value in baseline.items()}
    order = sorted(outcomes.present, key=lambda name: -outcomes.mean_change(name).mean)
    rows: list[list[Cell | str]] = [
        [f"{BASELINE} (EW)", *[_value_cell(value, digits[column]) for column, value in baseline.items()], ""]
    ]
    for name in order:
        cells: list[Cell | str] = [name]
        for column in outcomes.columns:
            value, change = outcomes.value(name, column), outcomes.change(name, column)
            cell = _value_cell(value, digits[column], _arrow(change), _tone(change))
            cells.append(
                Cell(f"{cell.text} ★", cell.tone, cell.detail, cell.order)
                if name in outcomes.three_best(column)
                else cell
            )
        mean = outcomes.mean_change(name)
        cells.append(Cell(mean.text(1, 100, sign=True), _tone(mean), mean.detail(1, 100), mean.mean))
        rows.append(cells)
    better = {True: "(more is better)", False: "(less is better)"}
    heads = [f"{column.name} {better[column.higher_is_better]}" for column in outcomes.columns]
    caption = (
        "Table 1. Mean over seeds ± deviation on the test split. ↑ ↓: better or worse than the baseline with the same "
        f"seed by more than {THRESHOLD:.0%} of its value, {NO_ARROW} otherwise. Strong colour: all seeds agree on the "
        "direction; pale: they do not. ★: among the three best. Last column: mean change over tasks in percent."
    )
    return Table(("Method", *heads, "Mean change, %"), rows, caption)


def level_table(outcomes: Outcomes) -> Table:
    """Table 2: what feature-level gradients change against parameter-level gradients."""
    rows: list[list[Cell | str]] = []
    for name in outcomes.present:
        if rep(name) not in outcomes.present:
            continue
        changes = [outcomes.change(rep(name), column, name) for column in outcomes.columns]
        changes.append(outcomes.mean_change(rep(name), name))
        label = name if name in TWO_LEVELS else f"{name} *"
        rows.append([label, *[_change_cell(change) for change in changes]])
    caption = (
        "Table 2. Relative change in percent of a method's feature-level run against its parameter-level run with the "
        "same seed, positive where better; mean over seeds ± deviation. * not in the paper's Table 2."
    )
    return Table(("Method", *[column.name for column in outcomes.columns], "Mean"), rows, caption)


def similarity_table(outcomes: Outcomes, level: str, title: str) -> Table:
    """Table 3: how alike the rankings by an indicator and by a metric are."""
    limit = chance_level(len(outcomes.present))
    values = {
        measure: [outcomes.similarity(column, level, measure) for column in outcomes.columns] for measure in INDICATORS
    }
    largest = [max(values[measure][i] for measure in INDICATORS) for i in range(len(outcomes.columns))]
    rows: list[list[Cell | str]] = []
    for measure in INDICATORS:
        cells = [
            Cell(f"{value:.3f}{' ★' if value == top else ''}", "better" if value > limit else "", order=value)
            for value, top in zip(values[measure], largest, strict=True)
        ]
        rows.append([measure.upper(), *cells])
    caption = f"{title} ★: the largest of a column. Coloured: above {limit:.3f}, which 95% of unrelated rankings miss."
    return Table(("Indicator", *[column.name for column in outcomes.columns]), rows, caption)


def places_table(outcomes: Outcomes) -> Table:
    """In how many metrics a variant gains, and is among the three best; the most first."""
    top, total = outcomes.top_three(), len(outcomes.columns)
    gains = {name: sum(outcomes.change(name, c).mean > 0 for c in outcomes.columns) for name in outcomes.present}
    order = sorted(outcomes.present, key=lambda name: (-top[name], -gains[name]))
    rows: list[list[Cell | str]] = [
        [name, Cell(f"{top[name]}", order=top[name]), Cell(f"{gains[name]} of {total}", order=gains[name])]
        for name in order
        if top[name] or gains[name] == total
    ]
    caption = "Variants that are among the three best somewhere, or gain everywhere (means over seeds)."
    return Table(("Method", "Top-three places", "Metrics gained"), rows, caption)


def length_table(outcomes: Outcomes, normalised: bool) -> Table:
    """How long the methods' combined gradients are, the longest first."""
    lengths = {name: outcomes.relative_length(name) for name in (BASELINE, *outcomes.present)}
    rows: list[list[Cell | str]] = []
    for name in sorted(lengths, key=lambda name: -lengths[name].mean):
        length, change = lengths[name], "" if name == BASELINE else outcomes.mean_change(name).text(1, 100, sign=True)
        rows.append([name, Cell(length.text(2), "", length.detail(2), length.mean), change])
    then = "before it was brought to that length, as in this whole study" if normalised else "as the optimizer gets it"
    caption = (
        f"Norm of the combined gradient of the shared parameters, {then}, against the norm of the tasks' summed "
        "gradients at the same parameters; median over the monitored steps. A method whose steps have another length "
        "than the baseline's also trains with another learning rate, as far as the optimizer lets lengths count: "
        "--normalise takes that away."
    )
    return Table(("Method", "Relative length", "Mean change, %"), rows, caption)


def runtime_report_table(times: Mapping[str, float]) -> Table:
    """Step times relative to equal weighting, the fastest first."""
    order = sorted(times, key=lambda name: times[name])
    longest = max(times.values())
    rows: list[list[Cell | str]] = [
        [
            name,
            Cell(f"{times[name]:.2f}", order=times[name]),
            Cell("█" * max(1, round(24 * times[name] / longest)), "bar"),
        ]
        for name in order
    ]
    caption = "Time of a training step without monitors, relative to the baseline; measured in turns on this machine."
    return Table(("Method", "Relative time", ""), rows, caption)


def _value_cell(value: Spread, digits: int, arrow: str = "", tone: str = "") -> Cell:
    text = f"{value.text(digits)} {arrow}".strip()
    return Cell(text, tone, value.detail(digits), value.mean)


def _change_cell(change: Spread) -> Cell:
    return Cell(change.text(1, 100, sign=True), _tone(change), change.detail(1, 100), change.mean)


def _arrow(change: Spread) -> str:
    return "↑" if change.mean > THRESHOLD else "↓" if change.mean < -THRESHOLD else NO_ARROW


def _tone(change: Spread) -> str:
    if not abs(change.mean) > THRESHOLD:
        return ""
    return ("better" if change.mean > 0 else "worse") + ("" if change.agree else "-hint")
