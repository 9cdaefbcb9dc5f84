"""Published numbers: transcriptions that are whole, changes that follow or are flagged, claims, tables for reports."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mtl_ext.data.celeba import PRESETS
from mtl_ext.data.cifar100 import DOMAINS
from mtl_ext.data.nyud_mt import TASKS as NYUD_TASKS
from mtl_ext.data.pascal_context import TASKS as PASCAL_TASKS
from mtl_ext.data.utkface import TASKS as UTKFACE_TASKS
from mtl_ext.report import Report, Section, render
from mtl_ext.studies.beside import beside_table, contradictions_blocks
from mtl_ext.studies.published import (
    DELTA,
    PublishedColumn,
    PublishedRow,
    PublishedTable,
    delta_contradictions,
    load_published,
    published_claims,
    published_notes,
    published_table,
    published_tables,
)
from mtl_ext.studies.spread import spread

STUDIES = ("dgr", "ial", "saal")
TABLES = {(study, name): table for study in STUDIES for name, table in published_tables(study).items()}
WITH_CHANGES = [key for key, table in TABLES.items() if table.reference]
# Table -> how many printed changes do not follow; those that are not here all do.
CONTRADICTIONS = {
    ("dgr", "table_2_mtan"): 13,
    ("dgr", "table_4b_nyuv2"): 2,
    ("ial", "table_1_nyuv2"): 2,
    ("ial", "table_1_cityscapes"): 2,
    ("ial", "table_4"): 1,
    ("ial", "table_8"): 1,
    ("ial", "table_10"): 6,
    ("ial", "table_11"): 1,
    ("saal", "table_1"): 7,
    ("saal", "table_3"): 10,
}


def delta(study, name, row):
    return TABLES[study, name].rows[row].delta


def values(study, name, row):
    return TABLES[study, name].rows[row].values


def value(study, name, row, column=0):
    return values(study, name, row)[column]


def change_by_hand(table, row):
    """Task -> change in percent by METHODS' formula: mean over metrics of (-1)^l (M - S) / S."""
    found = {}
    single = table.rows[table.reference].values
    for i, column in enumerate(table.columns):
        sign = (-1) ** (not column.higher_is_better)
        change = 100 * sign * (table.rows[row].values[i] - single[i]) / single[i]
        found.setdefault(column.task, []).append(change)
    return {task: np.mean(changes) for task, changes in found.items()}


# ---- transcription ----


@pytest.mark.parametrize("key", TABLES, ids="-".join)
def test_a_table_is_whole(key):
    table = TABLES[key]
    assert table.source.startswith("Table ") and table.rows
    assert table.reference is None or table.reference in table.rows
    assert len({column.name for column in table.columns}) == len(table.columns)
    directions = Counter((column.metric, column.higher_is_better) for column in table.columns)
    assert len(directions) == len({column.metric for column in table.columns})
    for name, row in table.rows.items():
        assert len(row.values) == len(table.columns), name
        assert len(row.std) in (0, len(table.columns)), name
        assert bool(row.std) == bool(next(iter(table.rows.values())).std), name
        for column, number, deviation in itertools.zip_longest(table.columns, row.values, row.std):
            assert number == round(number, column.digits), (name, number)
            assert deviation is None or deviation == round(deviation, column.digits), (name, deviation)
        if table.reference not in (None, name):
            assert row.delta == round(row.delta, 2), name


def test_every_table_of_the_papers_is_there():
    assert Counter(study for study, _ in TABLES) == {"dgr": 10, "ial": 12, "saal": 5}
    assert published_table("saal", "table_4") == TABLES["saal", "table_4"]
    methods = {"Vanilla", "DWA", "Uncertainty", "Auto-λ", "PCGrad", "CAGrad", "IMTL", "Nash-MTL"}
    for name in ("table_1", "table_2_split", "table_2_mtan", "table_3_split", "table_3_mtan"):
        assert set(TABLES["dgr", name].rows) == {"Single", *methods, *(f"{m} + DGR" for m in methods)}
    for name in ("table_1_nyuv2", "table_1_cityscapes", "table_2", "table_3"):
        assert list(TABLES["ial", name].rows) == list(TABLES["ial", "table_1_nyuv2"].rows)
    for name in ("table_1", "table_2", "table_3"):
        assert list(TABLES["saal", name].rows)[1:-1] == list(TABLES["saal", "table_4"].rows)


def test_a_row_that_tables_repeat_has_the_same_values():
    shared = {"Single": "Single task", "Single Task": "Single task", "Single task": "Single task", "Uniform": "Uniform"}
    for name in ("table_4", "table_8", "table_10", "table_11"):
        for row, first in shared.items():
            if row in TABLES["ial", name].rows and (name, row) != ("table_4", "Uniform"):
                assert TABLES["ial", name].rows[row].values == values("ial", "table_1_nyuv2", first)
    assert values("ial", "table_3", "Single task") == values("ial", "table_6", "Single task")
    assert values("dgr", "table_2_split", "Single") == values("dgr", "table_2_mtan", "Single")


def test_tasks_and_metrics_have_the_names_that_they_have_here():
    def names(tasks):
        return {f"{task.name} {make().name}" for task in tasks for make in task.metrics}

    def printed(study, name):
        return {column.name for column in TABLES[study, name].columns}

    assert printed("dgr", "table_1") <= names(UTKFACE_TASKS)
    assert printed("ial", "table_1_nyuv2") <= names(NYUD_TASKS)
    assert printed("ial", "table_3") == printed("dgr", "table_4c") == names(PASCAL_TASKS)
    assert {column.task for column in TABLES["ial", "table_7"].columns} - {"mean of 20"} <= set(DOMAINS)
    assert tuple(column.task for column in TABLES["saal", "table_3"].columns) == PRESETS["saal"]


def test_an_unknown_table_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="name is 'table_9', expected one of 'table_1', 'table_2'"):
        published_table("saal", "table_9")


# ---- changes ----


@pytest.mark.parametrize("key", WITH_CHANGES, ids="-".join)
def test_changes_are_recomputed_from_the_row(key):
    table = TABLES[key]
    for name in table.rows:
        by_hand = change_by_hand(table, name)
        assert table.changes(name) == pytest.approx(by_hand, abs=1e-9)
        low, high = table.changes(name, -1), table.changes(name, 1)
        assert all(low[task] < by_hand[task] < high[task] for task in by_hand)


@pytest.mark.parametrize("key", WITH_CHANGES, ids="-".join)
def test_every_printed_change_follows_or_is_flagged(key):
    table = TABLES[key]
    found = delta_contradictions(table)
    assert len(found) == CONTRADICTIONS.get(key, 0)
    flagged = {(entry.row, entry.column) for entry in found}
    for name, row in table.rows.items():
        by_hand = change_by_hand(table, name)
        printed = {f"change of {task}": (change, by_hand[task]) for task, change in row.changes.items()}
        if row.delta is not None:
            printed[DELTA] = (row.delta, np.mean(list(by_hand.values())))
        for column, (change, follows) in printed.items():
            # What rounding of an error of 0.84, the coarsest entry, allows.
            assert (name, column) in flagged or abs(change - follows) < 0.5


def test_rounding_is_allowed_for_to_the_last_corner():
    columns = (PublishedColumn("a", "acc", True, 1), PublishedColumn("b", "error", False, 1))
    rows = {"Single": PublishedRow((50.0, 2.0)), "M": PublishedRow((51.0, 1.5))}
    table = PublishedTable("Table 0", columns, rows, "Single")
    halves = itertools.product((-0.05, 0.05), repeat=4)
    corners = [100 * ((51 + a) / (50 + b) - 1 + 1 - (1.5 + c) / (2 + d)) / 2 for a, b, c, d in halves]
    for printed, expected in ((min(corners) - 0.004, 0), (min(corners) - 0.006, 1), (max(corners) + 0.006, 1)):
        rows["M"] = PublishedRow((51.0, 1.5), delta=printed)
        assert len(delta_contradictions(table)) == expected
    (entry,) = delta_contradictions(table)
    assert (entry.table, entry.row, entry.column) == ("Table 0", "M", DELTA)
    assert entry.recomputed == f"+13.50% ({min(corners):+.2f}% to {max(corners):+.2f}%)"


def test_a_table_without_single_task_row_has_no_changes():
    table = TABLES["saal", "table_4"]
    assert delta_contradictions(table) == []
    with pytest.raises(ValueError, match="Table 4 has no reference"):
        table.changes("Equal")


def test_what_the_notes_say_about_contradictions():
    swin = TABLES["dgr", "table_4b_nyuv2"]
    broken = TABLES["ial", "table_10"]
    for name in ("Vanilla", "Vanilla + DGR"):
        assert sum(swin.changes(name).values()) == pytest.approx(swin.rows[name].delta, abs=0.02)
    for name in ("Uncer. (Fix)", "Auto-λ (Fix)", "IAL (Fix)"):
        changes = broken.changes(name)
        assert changes["segmentation"] + changes["normals"] == pytest.approx(broken.rows[name].delta, abs=0.015)
    for name in ("table_1", "table_2"):
        for row in TABLES["saal", name].rows.values():
            if len(row.changes) == 3:
                assert np.mean(list(row.changes.values())) == pytest.approx(row.delta, abs=0.0101)
    implied = TABLES["dgr", "table_4c"]
    for name, row in list(implied.rows.items())[1:]:
        assert implied.delta(name) == pytest.approx(row.delta, abs=0.04)
    lost = TABLES["saal", "table_2"]
    assert "segmentation" not in lost.rows["DWA"].changes
    assert lost.changes("DWA")["segmentation"] == pytest.approx(-5.25, abs=0.005)
    assert lost.rows["DWA"].delta * 3 - sum(lost.rows["DWA"].changes.values()) == pytest.approx(-5.25, abs=0.02)
    mtan = TABLES["dgr", "table_2_mtan"].rows
    assert mtan["Auto-λ"].values[:2] == mtan["Nash-MTL"].values[:2] and mtan["Auto-λ"].delta == mtan["Nash-MTL"].delta
    assert "Nash-MTL" not in {entry.row for entry in delta_contradictions(TABLES["dgr", "table_2_mtan"])}


# ---- claims ----


@pytest.mark.parametrize("study", STUDIES)
def test_claims_say_where_the_paper_makes_them(study):
    claims = published_claims(study)
    assert len(claims) >= 15 and len({claim.text for claim in claims}) == len(claims)
    for claim in claims:
        assert claim.text.strip() and claim.reference.startswith("Section ")
    assert all(published_notes(study)) and load_published(study)["paper"]


def test_what_the_papers_say_of_their_numbers_follows_from_them():
    drops = {"IMTL": 13.41, "GradNorm": 8.6, "UW": 5.28, "Uniform": 3.72}
    for row, drop in drops.items():
        assert delta("ial", "table_1_nyuv2", row) - delta("ial", "table_4", row) == pytest.approx(drop, abs=1e-9)
    hours = TABLES["ial", "table_2"].rows
    ratios = np.divide(hours["IAL"].values, hours["Uniform"].values)
    assert ratios.round(2).tolist() == [1.16, 1.12, 1.05]
    saal = {"table_2": ["SAAL_e", "SAAL_ew", None, "SAAL_w"], "table_3": ["SAAL_w", "SAAL_ew", None, "SAAL_e"]}
    for name, order in saal.items():
        rows = TABLES["saal", name].rows
        best = sorted(rows, key=lambda row: -rows[row].delta)[:4]
        assert [row if row.startswith("SAAL") else None for row in best] == order
    for name in ("table_2_split", "table_2_mtan"):
        rows = TABLES["dgr", name].rows
        assert max(rows, key=lambda row: rows[row].delta or 0) == "IMTL + DGR"
    for name in ("table_1", "table_3_split", "table_3_mtan"):
        rows = TABLES["dgr", name].rows
        assert max(rows, key=lambda row: rows[row].delta or 0) == "CAGrad + DGR"


def test_what_speaks_against_claims_is_in_the_tables():
    assert [sum(bool(claim.against) for claim in published_claims(study)) for study in STUDIES] == [4, 7, 1]
    # DGR
    assert value("dgr", "table_1", "Vanilla + DGR", 2) < value("dgr", "table_1", "Vanilla", 2)
    assert value("dgr", "table_1", "DWA + DGR") < value("dgr", "table_1", "DWA")
    assert delta("dgr", "table_2_mtan", "Uncertainty + DGR") < delta("dgr", "table_2_mtan", "Uncertainty")
    assert value("dgr", "table_4a_imagenet", "ImageNet", 3) < value("dgr", "table_4a_imagenet", "ImageNet", 0)
    for row in ("Single", "Vanilla"):
        assert value("dgr", "table_4b_cityscapes", row) < value("dgr", "table_3_split", row)
    # IAL
    assert delta("ial", "table_1_cityscapes", "Uniform") < 0
    below = {"UW", "GradNorm", "DWA", "MGDA", "Miraliev et al.", "ATW", "Uniform"}
    rows = TABLES["ial", "table_1_cityscapes"].rows
    assert {row for row in rows if (rows[row].delta or 0) < rows["GCS"].delta} - {"Single task"} == below
    assert value("ial", "table_3", "Miraliev et al.", 4) > value("ial", "table_3", "IAL", 4)
    assert value("ial", "table_2", "IAL", 2) > value("ial", "table_2", "PCGrad", 2)
    assert delta("ial", "table_4", "UW") < delta("ial", "table_4", "Uniform")
    assert delta("ial", "table_4", "Auto-λ") < delta("ial", "table_1_nyuv2", "Auto-λ")
    assert delta("ial", "table_3", "OL-AUX") - delta("ial", "table_6", "OL-AUX") > 0.3
    # SAAL
    assert value("saal", "table_4", "SAAL_e", 2) < value("saal", "table_4", "SAAL_e", 1)


# ---- reports ----


def test_a_report_shows_ours_in_the_papers_units_and_flags_what_does_not_follow():
    ours = {
        "PCGrad": {"depth abs err": spread([0.40, 0.42]), DELTA: spread([0.05, 0.06])},
        "ours alone": {"depth abs err": spread([1.0])},
    }
    table = beside_table(TABLES["dgr", "table_2_mtan"], ours)
    rows = {row[0].text: row for row in table.cells}
    assert len(rows) == 17 and "ours alone" not in rows
    assert table.columns[-2:] == ("depth abs err times 100 ↓", "Δ_MTL, %")
    depth, change = rows["PCGrad"][-2:]
    assert (depth.text, depth.detail, depth.tone) == ("39.79", "here 41.00 ± 1.41", "")
    assert (change.text, change.tone) == ("+5.41 ≠", "no")
    assert change.detail == "follows +8.03, here +5.50 ± 0.71"
    assert (rows["Nash-MTL"][-1].text, rows["Nash-MTL"][-1].tone) == ("+10.02", "")
    assert rows["Single"][-1].text == "" and "≠" in table.caption


def test_a_report_says_which_row_the_paper_does_not_print():
    (row,) = (row for row in beside_table(TABLES["dgr", "table_4c"], {}).cells if row[0].text == "Single")
    assert (row[0].tone, row[0].detail) == ("muted", "not in the table")
    plain = beside_table(TABLES["saal", "table_5"], {})
    assert len(plain.columns) == 4 and "≠" not in plain.caption


@pytest.mark.parametrize("study", STUDIES)
def test_a_section_lists_all_contradictions_of_a_paper(study):
    blocks = contradictions_blocks(study)
    count = sum(number for (name, _), number in CONTRADICTIONS.items() if name == study)
    assert blocks[0].text.startswith(f"{count} of the ") and len(blocks[1].rows) == count
    page = render(Report("Published", ["Numbers."], [Section("The paper's own numbers", blocks)]))
    assert blocks[1].rows[0][3] in page
