"""Tables of the DGR study, in the paper's form."""

from collections.abc import Mapping, Sequence

from mtl_ext.report import Cell, Table
from mtl_ext.studies.changes import Column
from mtl_ext.studies.choice import Decision
from mtl_ext.studies.dgr.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.dgr.protocol import ADDED, COMPARED, VANILLA, added, single
from mtl_ext.studies.dgr.representation import Representation
from mtl_ext.studies.published import DELTA, PublishedTable, delta_contradictions, published_table
from mtl_ext.studies.spread import Spread

# Changes up to this, a tenth of a percent or of a point, have no colour.
LEAST = 0.001
# Rows of the paper's Table 4(c) for networks that are experiments of their own here.
PAPER_ROWS = {"MTAN": {VANILLA: "MTAN", added(VANILLA): added("MTAN")}}


def methods_table(outcomes: PartOutcomes, number: str) -> Table:
    """Tables 1 to 3: every method's metrics and Delta_MTL, what DGR adds, and what the paper has there."""
    part, columns = outcomes.part, outcomes.columns
    paper = None if part.published is None else published_table("dgr", part.published)
    rows: list[list[Cell | str]] = []
    if all(outcomes.singles.get(single(task)) for task in part.tasks):
        alone = [outcomes.value(single(column.task), column) for column in columns]
        cells = [_value(value, column) for value, column in zip(alone, columns, strict=True)]
        rows.append(["Single", *cells, "", "", *([""] * (2 if paper else 0))])
    for method in part.methods:
        for row in (method, added(method)):
            if not outcomes.has(row):
                continue
            base = None if row == method or not outcomes.has(method, row) else method
            cells = [
                _value(outcomes.value(row, c), c, outcomes.change(row, base, c) if base else None) for c in columns
            ]
            gain = _points_cell(outcomes.gain(row, base)) if base else ""
            label: Cell | str = row if row == method else Cell(row, "muted")
            rows.append([label, *cells, _delta_cell(outcomes.delta(row)), gain, *_paper_cells(paper, row, part.name)])
    better = {True: "more is better", False: "less is better"}
    heads = [f"{column.name} ({better[column.higher_is_better]})" for column in columns]
    caption = (
        f"{number}. {part.title}: mean over seeds ± deviation, test split. {DELTA} is the mean change over tasks "
        "against each task trained alone with the same seed; the gain is that of a row + DGR minus that of its base, "
        "in points. Blue: DGR is better than the base by more than 0.1, red: worse; pale: the seeds do not agree."
    )
    paper_heads = [f"paper: {DELTA}, %", "paper: gain, points"] if paper else []
    if paper and delta_contradictions(paper):
        caption += f" ≠: the paper's {DELTA} does not follow from its row; behind it what does."
    return Table(("Method", *heads, f"{DELTA}, %", "Gain of DGR, points", *paper_heads), rows, caption)


def beside_numbers(outcomes: PartOutcomes) -> dict[str, dict[str, Spread]]:
    """Our numbers by the paper's names of rows and columns, for data that are the paper's."""
    part = outcomes.part
    found: dict[str, dict[str, Spread]] = {}
    if all(outcomes.singles.get(single(task)) for task in part.tasks):
        found["Single"] = {column.name: outcomes.value(single(column.task), column) for column in outcomes.columns}
    for row in [row for method in part.methods for row in (method, added(method)) if outcomes.has(row)]:
        found[_paper_row(row, part.name)] = {
            **{column.name: outcomes.value(row, column) for column in outcomes.columns},
            DELTA: outcomes.delta(row),
        }
    return found


def comparators_table(outcomes: PartOutcomes) -> Table:
    """Figure 2 in numbers: Delta_MTL of the compared methods alone and with SAM, PTA and DGR."""
    rows: list[list[Cell | str]] = []
    for method in [method for method in COMPARED if outcomes.has(method)]:
        cells: list[Cell | str] = [method, _delta_cell(outcomes.delta(method))]
        for what in ADDED:
            row = added(method, what)
            cells.append(_gain_cell(outcomes, row, method) if outcomes.has(row, method) else "")
        rows.append(cells)
    caption = (
        f"{DELTA} in percent, mean over seeds ± deviation; in the last three columns behind it the gain in points over "
        "the method alone. Vanilla with something is what the paper's grey bars show."
    )
    return Table(("Method", "alone", *(f"+ {what}" for what in ADDED)), rows, caption)


def dummies_table(parts: Sequence[PartOutcomes], paper: PublishedTable) -> Table:
    """Table 4(a): Delta_MTL by number of tasks and of dummies, and the paper's behind it."""
    counts = sorted({count for part in parts for count in part.part.dummies})
    names = [column.task.removeprefix("d = ") for column in paper.columns]
    printed = {0 if name == VANILLA else int(name): place for place, name in enumerate(names)}
    rows: list[list[Cell | str]] = []
    for part in parts:
        for size in range(1, len(part.part.tasks) + 1):
            found = paper.rows.get(f"{part.part.dummies_row} ({size})")
            theirs = {} if found is None else {count: found.values[place] for count, place in printed.items()}
            cells: list[Cell | str] = [f"{part.part.title} ({size})"]
            cells.append(_with_paper(part.subset_delta(size, 0), None, theirs.get(0)))
            for count in counts:
                gain = part.subset_gain(size, count)
                cells.append(_with_paper(part.subset_delta(size, count), gain, theirs.get(count)))
            rows.append(cells)
    caption = (
        f"Table 4(a). {DELTA} in percent, mean over seeds ± deviation, and over all choices of so many tasks (ours: "
        "the paper does not say which tasks it takes); in brackets the number of tasks. Behind it the "
        "paper's. Blue: better than Vanilla by more than 0.1, red: worse; pale: the seeds do not agree."
    )
    return Table(("Data (tasks)", VANILLA, *(f"d = {count}" for count in counts)), rows, caption)


def single_task_table(outcomes: PartOutcomes) -> Table:
    """Table 4(a), last row: accuracy of a single task by number of dummies."""
    (task,), (column,) = outcomes.part.tasks, outcomes.columns
    names = {0: single(task), **{count: f"d = {count} ({task})" for count in outcomes.part.dummies}}
    present = {count: name for count, name in names.items() if outcomes.runs.get(name)}
    paper = published_table("dgr", "table_4a_imagenet").rows["ImageNet"].values
    ours = [
        _value(
            outcomes.value(name, column),
            column,
            outcomes.change(name, single(task), column) if count and outcomes.has(name, single(task)) else None,
        )
        for count, name in present.items()
    ]
    theirs = dict(zip((0, 1, 3, 5), paper, strict=True))
    rows: list[list[Cell | str]] = [
        [outcomes.part.title, *ours],
        ["the paper: ImageNet", *[f"{theirs[count]:.2f}" if count in theirs else "" for count in present]],
    ]
    heads = [f"d = {count}" if count else "without DGR" for count in present]
    caption = f"Table 4(a), last row. {column.metric} of one task on the test split, by number of dummies."
    return Table(("Data", *heads), rows, caption)


def accuracies_table(outcomes: PartOutcomes) -> Table:
    """Figure 3(a) in numbers: mean over tasks and classifiers, and the distance between classifiers."""
    measured = [row for method in outcomes.pairs for row in (method, added(method))]
    rows: list[list[Cell | str]] = []
    for row in [row for row in measured if outcomes.representations.get(row)]:
        cells: list[Cell | str] = [row if row in outcomes.pairs else Cell(row, "muted")]
        for task in outcomes.part.tasks:
            accuracy = outcomes.of_representation(row, Representation.mean_accuracy, task)
            distance = outcomes.of_representation(row, Representation.classifier_spread, task)
            details = "; ".join(text for text in (accuracy.detail(1), f"apart {distance.text(1)}") if text)
            cells.append(Cell(accuracy.text(1), "", details, accuracy.mean))
        rows.append(cells)
    caption = (
        "Mean accuracy of a decision tree, an SVM and k nearest neighbours on the frozen encoder's features, in "
        "percent, ± deviation over seeds; behind it how far the best and the worst of the three are apart, in points."
    )
    return Table(("Method", *outcomes.part.tasks), rows, caption)


def decisions_table(outcomes: Outcomes, decisions: Mapping[str, Decision]) -> Table:
    """The chosen strengths of DGR, with all that were tried."""
    rows: list[list[Cell | str]] = []
    for part in outcomes.parts.values():
        decision = decisions.get(part.part.choice_name)
        if part.part.chosen_in is not None or decision is None:
            continue
        tried = "; ".join(f"{row} {score.percent()}" for row, score in decision.scores.items() if row.startswith("λ"))
        clear = "with every seed" if is_clear(decision) else "seeds do not agree"
        sharing = [other.part.title for other in outcomes.parts.values() if other.part.chosen_in == part.part.name]
        rows.append([part.part.title, Cell(f"{decision.value:g}", "unknown"), tried, clear, ", ".join(sharing)])
    caption = (
        f"The strength λ of DGR: that with the best {DELTA} of Vanilla + DGR against Vanilla on held-out data, "
        "mean over seeds ± deviation. The test split had no part in it."
    )
    heads = ("Experiment", "Chosen λ", "Held-out change by λ", "Better than without DGR?", "Also used in")
    return Table(heads, rows, caption, wrap=True)


def is_clear(decision: Decision) -> bool:
    """Whether what was chosen is better than none with every seed."""
    score = decision.scores[decision.row]
    return score.agree and score.mean > 0


def runtime_table(outcomes: PartOutcomes) -> Table:
    """Step times relative to the same without DGR, the fastest first; of several tasks those trained together."""
    times = dict(outcomes.step_times)
    if VANILLA in times:
        left_out = ("Single", "d =", f"{VANILLA} (")
        times = {row: time for row, time in times.items() if not row.startswith(left_out)}
    longest = max(times.values())
    rows: list[list[Cell | str]] = [
        [row, Cell(f"{time:.2f}", order=time), Cell("█" * max(1, round(24 * time / longest)), "bar")]
        for row, time in sorted(times.items(), key=lambda item: item[1])
    ]
    unit = VANILLA if VANILLA in times else "training without DGR"
    caption = f"{outcomes.part.title}: time of a training step relative to {unit}, measured in turns on this machine."
    return Table(("Row", "Relative time", ""), rows, caption)


def _value(value: Spread, column: Column, change: Spread | None = None) -> Cell:
    digits = 2 if abs(value.mean) >= 1 else 4
    return Cell(value.text(digits), _tone(change), value.detail(digits), value.mean)


def _delta_cell(delta: Spread, tone: str = "", more: str = "") -> Cell:
    details = "; ".join(text for text in (delta.detail(2, 100), more) if text)
    return Cell(delta.text(2, 100, sign=True), tone, details, delta.mean)


def _gain_cell(outcomes: PartOutcomes, row: str, base: str) -> Cell:
    gain = outcomes.gain(row, base)
    return _delta_cell(outcomes.delta(row), _tone(gain), f"gain {gain.text(2, 100, sign=True)}")


def _with_paper(delta: Spread, gain: Spread | None, theirs: float | None) -> Cell:
    return _delta_cell(delta, _tone(gain), "" if theirs is None else f"paper {theirs:+.2f}")


def _points_cell(gain: Spread) -> Cell:
    return Cell(gain.text(2, 100, sign=True), _tone(gain), gain.detail(2, 100), gain.mean)


def _paper_cells(paper: PublishedTable | None, row: str, name: str) -> list[Cell | str]:
    """The paper's Delta_MTL and gain."""
    if paper is None:
        return []
    theirs = _paper_row(row, name)
    printed = paper.rows.get(theirs)
    if printed is None or printed.delta is None:
        return ["", ""]
    odd = {entry.row: entry.recomputed for entry in delta_contradictions(paper) if entry.column == DELTA}
    text = f"{printed.delta:+z.2f}" + (" ≠" if theirs in odd else "")
    cell = Cell(
        text, "no" if theirs in odd else "muted", f"follows {odd[theirs]}" if theirs in odd else "", printed.delta
    )
    base = paper.rows.get(theirs.removesuffix(" + DGR"))
    if theirs.endswith(" + DGR") and base is not None and base.delta is not None:
        gain = printed.delta - base.delta
        return [cell, Cell(f"{gain:+z.2f}", "muted", order=gain)]
    return [cell, ""]


def _paper_row(row: str, name: str) -> str:
    """The paper's row, in a table that has several networks."""
    return PAPER_ROWS["MTAN"].get(row, row) if name == "pascal_mtan" else row


def _tone(change: Spread | None) -> str:
    if change is None or not abs(change.mean) > LEAST:
        return ""
    return ("better" if change.mean > 0 else "worse") + ("" if change.agree else "-hint")
