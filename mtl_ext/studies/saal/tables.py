"""Tables of the SAAL study, in the paper's form."""

import dataclasses

from mtl_ext.models.self_auxiliary import all_pairs
from mtl_ext.relationships import self_auxiliary_pairs
from mtl_ext.report import Cell, Table
from mtl_ext.studies.beside import beside_table
from mtl_ext.studies.claims import NotTestableError
from mtl_ext.studies.published import DELTA, PublishedTable, published_table
from mtl_ext.studies.saal.measures import MEASURES
from mtl_ext.studies.saal.outcomes import STL, Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import BOTTOM, METHODS
from mtl_ext.studies.spread import Spread

PAPER_DATA = {"table_1": "NYUv2", "table_2": "Cityscapes", "table_3": "CelebA"}


def methods_table(part: PartOutcomes) -> Table:
    """Tables 1 to 3: changes of the tasks against single tasks, Delta_MTL and metrics."""
    columns = list(part.columns)
    digits = {column: 1 if abs(part.value(STL, column).mean) >= 10 else 3 for column in columns}
    best = max(part.methods, key=lambda name: part.delta(name).mean) if part.methods else ""
    tasks = list(part.part.tasks)
    single_row: list[Cell | str] = ["Single task", STL, *[Cell("0.0", "", "", 0.0)] * (len(tasks) + 1)]
    single_row += [_value_cell(part.value(STL, column), digits[column], 0.0) for column in columns]
    rows = [single_row]
    for name in part.methods:
        architecture = "Shared bottom" if name == BOTTOM else "Half-shared"
        cells: list[Cell | str] = [architecture, "Equal" if name == BOTTOM else name]
        cells += [_change_cell(part.change(name, task)) for task in tasks]
        delta = _change_cell(part.delta(name))
        cells.append(dataclasses.replace(delta, text=f"{delta.text} ★") if name == best else delta)
        for column in columns:
            single, value = part.value(STL, column).mean, part.value(name, column)
            gain = (value.mean - single) * (1 if column.higher_is_better else -1)
            cells.append(_value_cell(value, digits[column], gain))
        rows.append(cells)
    heads = [f"Δ {task}, %" for task in tasks] + [f"{DELTA}, %"]
    heads += [f"{column.name} {'↑' if column.higher_is_better else '↓'}" for column in columns]
    caption = (
        f"{_place(part)}. Change against single-task networks with the same seed, positive where better, and metrics; "
        "test split, mean ± deviation over seeds. Strong colour: all seeds agree on the direction; pale: they do not. "
        "Metrics in colour are better than those of single tasks. ★: the best."
    )
    return Table(("Architecture", "Method", *heads), rows, caption)


def beside_paper(part: PartOutcomes) -> Table | None:
    """The paper's table with our numbers behind its own; on other data, only Delta_MTL is comparable."""
    if part.part.table not in PAPER_DATA:
        return None
    table = published_table("saal", part.part.table)
    ours: dict[str, dict[str, Spread]] = {
        name: {DELTA: part.delta(name), **{column.name: part.value(name, column) for column in part.columns}}
        for name in part.methods
    }
    ours[STL] = {column.name: part.value(STL, column) for column in part.columns}
    if not is_papers_data(part, table):
        ours = {name: {DELTA: values[DELTA]} for name, values in ours.items() if DELTA in values}
    shown = beside_table(table, ours)
    if is_papers_data(part, table):
        return shown
    text = f" Here {part.part.name} stand for it: only Δ_MTL is shown, and only its sign and order compare."
    rows = [[row[0], row[-1]] for row in shown.rows]
    return Table((shown.columns[0], shown.columns[-1]), rows, shown.caption + text)


def is_papers_data(part: PartOutcomes, table: PublishedTable) -> bool:
    """Whether the metrics are those of the paper's table, on a data set that is not drawn here."""
    drawn = part.part.recipe.train.get("data") in ("scenes", "faces", "multi_mnist")
    return not drawn and {column.task for column in table.columns} == set(part.part.tasks)


def runtime_table(outcomes: Outcomes) -> Table:
    """Table 4: step times relative to equal weighting, and the paper's."""
    timed = [part for part in outcomes.parts if part.step_times]
    paper = published_table("saal", "table_4")
    names = [name for name in METHODS if any(name in part.step_times for part in timed)]
    rows: list[list[Cell | str]] = []
    for name in names:
        cells: list[Cell | str] = [name]
        cells += [
            Cell(f"{part.step_times[name]:.2f}", "", "", part.step_times[name]) if name in part.step_times else ""
            for part in timed
        ]
        cells += [Cell(f"{value:.2f}", "muted", "", value) for value in paper.rows[name].values]
        rows.append(cells)
    heads = [f"{part.part.name}, {len(part.part.runtime_tasks)} tasks" for part in timed]
    heads += [f"paper, {column.task}" for column in paper.columns]
    caption = (
        "Table 4. Time of a training step relative to equal weighting, measured in turns on this machine. The paper "
        "has three tasks on NYUv2 and Cityscapes, nine on CelebA. "
        + " ".join(_auxiliaries(part) for part in timed if any("SAAL" in name for name in part.step_times))
    )
    return Table(("Method", *heads), rows, caption.strip())


def agreement_table(outcomes: Outcomes) -> Table:
    """Table 5: rank correlation of the measures with the enumeration, and the paper's."""
    paper = published_table("saal", "table_5")
    seeds = outcomes.single_seeds()
    rows: list[list[Cell | str]] = []
    for name in MEASURES:
        cells: list[Cell | str] = [name, *(_agreement_cell(part, name, seeds) for part in outcomes.parts)]
        cells += [Cell(f"{value:+.2f}", "muted", "", value) for value in paper.rows[name].values]
        rows.append(cells)
    heads = [f"{part.part.name}, {len(part.part.tasks)} tasks" for part in outcomes.parts]
    heads += [f"paper, {column.task}" for column in paper.columns]
    caption = (
        "Table 5. Spearman's rank correlation with the enumeration over the sources of each target, mean over targets; "
        "measures and enumeration are means over seeds. Behind it the same of each seed alone."
    )
    return Table(("Measure", *heads), rows, caption)


def _agreement_cell(part: PartOutcomes, name: str, seeds: list[Outcomes]) -> Cell:
    try:
        found = part.agreement(name)
    except NotTestableError:
        return Cell("none", "muted")
    alone = []
    for seed in seeds:
        for single in seed.parts:
            if single.part.name == part.part.name:
                try:
                    alone.append(f"{single.agreement(name).mean:+.2f}")
                except NotTestableError:
                    continue
    told = len(found.targets)
    targets = f"; {told} of {told + len(found.left_out)} targets" if found.left_out else ""
    return Cell(f"{found.mean:+.2f}", "", f"({', '.join(alone)}{targets})", found.mean)


def _auxiliaries(part: PartOutcomes) -> str:
    name, trained = part.part.name, part.part.tasks
    text = f"On {name}, SAAL_w has {len(all_pairs(part.part.runtime_tasks))} self-auxiliaries"
    try:
        timed = part.part.timed_auxiliaries(self_auxiliary_pairs(part.enumeration().values))
    except NotTestableError:
        return f"{text}."
    text += f", SAAL_e and SAAL_ew {len(timed)}"
    if part.part.runtime_tasks == trained:
        return f"{text}, those enumerated."
    return (
        f"{text}: as large a share of all pairs as the enumeration of the {len(trained)} trained tasks found helpful."
    )


def _place(part: PartOutcomes) -> str:
    if part.part.table not in PAPER_DATA:
        return part.part.name.capitalize()
    number = part.part.table.removeprefix("table_")
    if is_papers_data(part, published_table("saal", part.part.table)):
        return f"Table {number}, {part.part.name}"
    return f"Table {number} ({PAPER_DATA[part.part.table]} in the paper), here {part.part.name}"


def _value_cell(value: Spread, digits: int, gain: float) -> Cell:
    return Cell(value.text(digits), "better-hint" if gain > 0 else "", value.detail(digits), value.mean)


def _change_cell(change: Spread) -> Cell:
    tone = ("better" if change.mean > 0 else "worse") + ("" if change.agree else "-hint")
    return Cell(change.text(1, 100, sign=True), tone, change.detail(1, 100), change.mean)
