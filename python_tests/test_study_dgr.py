"""The DGR study: recipes, rows, what claims hold and fail on, representations, and a tiny study from end to end."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

from mtl_ext.cli import main
from mtl_ext.cli.study import choose_recipe
from mtl_ext.representation import CLASSIFIERS, Encoded
from mtl_ext.studies import DGRStudy, load_recipe, recipe_names, report_folder
from mtl_ext.studies.changes import Column
from mtl_ext.studies.choice import Decision
from mtl_ext.studies.claims import NotTestableError, Verdict, judge
from mtl_ext.studies.dgr import tables
from mtl_ext.studies.dgr.claims import claims
from mtl_ext.studies.dgr.outcomes import Outcomes, PartOutcomes
from mtl_ext.studies.dgr.protocol import METHODS, added, make_parts, single, subset_row, subsets
from mtl_ext.studies.dgr.representation import Representation, class_order, silhouette
from mtl_ext.studies.published import published_claims, published_table
from mtl_ext.studies.spread import spread
from mtl_ext.studies.study import read_description

TASKS = ("age", "gender", "ethnicity")
COLUMNS = [Column(task, "acc %", True) for task in TASKS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of the tiny preset, with one seed."""
    out = tmp_path_factory.mktemp("study")
    DGRStudy(replace(load_recipe("dgr", "tiny"), seeds=1)).run(out, 1)
    return out


# ---- recipes and rows ----


@pytest.mark.parametrize("name", recipe_names("dgr"))
def test_every_recipe_describes_runs_in_folders_of_their_own(name):
    recipe = load_recipe("dgr", name)
    runs = DGRStudy(recipe).runs
    assert len({run.folder for run in runs}) == len(runs) and recipe.notes
    for part in make_parts(recipe).values():
        if part.published is not None and part.same_data:
            columns = published_table("dgr", part.published).columns
            names = [f"{column.task}/{column.metric}" for column in columns]
            assert list(part.tasks) == [column.task for column in columns]
            assert list(part.metrics) == names or not part.metrics


def test_the_recipes_have_the_papers_tables():
    published = {
        part.published for name in recipe_names("dgr") for part in make_parts(load_recipe("dgr", name)).values()
    }
    assert {f"table_{n}" for n in ("1", "2_split", "2_mtan", "3_split", "3_mtan", "4a_imagenet", "4c")} < published
    assert {"table_4b_nyuv2", "table_4b_cityscapes"} < published
    for name in ("quick", "utkface"):
        faces = make_parts(load_recipe("dgr", name))["faces"]
        assert faces.methods == tuple(METHODS) and faces.added == ("SAM", "PTA") and faces.representation
    assert load_recipe("dgr", "quick").seeds == 3


def test_full_recipes_try_the_papers_strengths():
    for name in ("utkface", "nyuv2", "cityscapes", "pascal", "class_folder"):
        for part in make_parts(load_recipe("dgr", name)).values():
            assert {1e-5, 1e-6, 1e-7} < set(part.grid) and max(part.grid) > 1e-5


def test_rows_have_a_penalty_decoders_or_an_ascent_and_singles_nothing():
    part = make_parts(load_recipe("dgr", "tiny"))["faces"]
    rows = part.experiment(0.5).rows
    assert rows["Vanilla"].method == "EW" and rows["Vanilla"].penalty is None and rows["Vanilla"].tasks == TASKS
    assert rows["CAGrad + DGR"].method == "CAGrad"
    assert rows["CAGrad + DGR"].penalty_options == {"strength": 0.5, "dummies": 3}
    assert rows["Vanilla + SAM"].sam_rho == 0.05 and rows["Vanilla + PTA"].decoders == 3
    assert rows["Single age"].tasks == ("age",) and rows["Single age"].penalty is None
    assert list(rows)[:7] == [*map(single, TASKS), "Vanilla", "Vanilla + DGR", "CAGrad", "CAGrad + DGR"]


def test_every_choice_of_tasks_has_a_row_per_number_of_dummies():
    part = make_parts(load_recipe("dgr", "quick"))["nyuv2_split"]
    rows = part.experiment(0.5).rows
    assert len(subsets(part.tasks)) == 7
    for tasks in subsets(part.tasks):
        for count in (0, 1, 3, 5):
            config = rows[subset_row(tasks, count, part.tasks)]
            assert config.tasks == tasks and config.method == "EW"
            assert config.penalty_options.get("dummies", 0) == count
    assert subset_row(part.tasks, 3, part.tasks) == "Vanilla + DGR" and subset_row(("a",), 3, ("a",)) == "d = 3 (a)"


def test_settings_of_a_method_are_its_own():
    parts = make_parts(load_recipe("dgr", "nyuv2"))
    rows = parts["nyuv2_mtan"].experiment(0.5).rows
    assert {rows[row].optimizer for row in rows if row.startswith("Nash")} == {"Adam"}
    assert {rows[row].optimizer for row in rows if not row.startswith("Nash")} == {"SGD"}
    pascal = make_parts(load_recipe("dgr", "pascal"))["pascal_split"].experiment(0.5).rows
    assert pascal["Vanilla + DGR"].method == "FixedWeights" and pascal["Single edges"].method == "EW"
    assert pascal["Vanilla"].method_options == {"weights": [1.0, 2.0, 10.0, 5.0, 50.0]}


def test_strengths_are_chosen_on_held_out_data_before_the_rows_are_run():
    study = DGRStudy(load_recipe("dgr", "quick"))
    choices = study.choices()
    assert list(choices) == ["strength in faces", "strength in digits", "strength in nyuv2_split"]
    for choice in choices.values():
        assert all(config.holdout == 0.2 for config in choice.rows.values())
        assert next(iter(choice.rows)) == "Vanilla" not in choice.values
    rows = study.experiments(dict.fromkeys(choices, 0.25))["nyuv2_mtan"].rows
    assert rows["Vanilla + DGR"].penalty_options["strength"] == 0.25 and rows["Vanilla + DGR"].holdout == 0
    (choice,) = DGRStudy(load_recipe("dgr", "utkface")).choices().values()
    assert all(config.holdout == 0 for config in choice.rows.values())  # UTKFace has a validation split


def test_methods_can_be_left_out_and_unknown_ones_are_refused():
    rows = DGRStudy(load_recipe("dgr", "quick"), ["IMTL"]).experiments({f"strength in {n}": 1 for n in PARTS})
    assert [row for row in rows["faces"].rows if "+ DGR" in row] == ["Vanilla + DGR", "IMTL + DGR"]
    with pytest.raises(ValueError, match="methods has 'SGD', expected names out of Vanilla, DWA"):
        DGRStudy(load_recipe("dgr", "quick"), ["SGD"])


PARTS = ("faces", "digits", "nyuv2_split")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 1}, "experiment 'faces' has no option 'speed'; it has title, tasks"),
        ({"methods": ["SGD"]}, "methods has 'SGD'"),
        ({"added": ["DGR"]}, "added is .*'DGR'.*, expected some of SAM, PTA"),
        ({"grid": []}, "grid is .*, expected strengths above 0"),
        ({"grid": ["1e-3"]}, "with a point"),
        ({"chosen_in": "scenes"}, "chosen_in is 'scenes', expected one that has its own"),
        ({"single_in": "faces"}, "single_in is 'faces', expected one that has its own"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(options, message):
    recipe = load_recipe("dgr", "tiny")
    own = recipe.experiments["faces"]
    changed = {**recipe.experiments, "faces": {**own, "options": {**own["options"], **options}}}
    with pytest.raises(ValueError, match=message):
        make_parts(replace(recipe, experiments=changed))


def test_recipes_without_experiments_or_titles_are_refused():
    recipe = load_recipe("dgr", "tiny")
    with pytest.raises(ValueError, match="has no experiments"):
        make_parts(replace(recipe, experiments={}))
    with pytest.raises(ValueError, match="experiment 'faces' has no option 'title'"):
        make_parts(replace(recipe, experiments={"faces": {}}))


def test_options_choose_a_recipe(tmp_path):
    recipe = choose_recipe("dgr", "full", "pascal", tmp_path, None, 5, None)
    assert recipe.experiment("pascal_mtan").train["data_options"]["root"] == str(tmp_path)
    assert recipe.experiment("pascal_mtan").seeds == 5
    with pytest.raises(ValueError, match="the data utkface need --root"):
        choose_recipe("dgr", "full", "utkface", None, None, None, None)
    with pytest.raises(ValueError, match="study dgr has no recipe 'scenes'"):
        choose_recipe("dgr", "full", "scenes", None, None, None, None)


# ---- outcomes ----


def part_of(values, name="faces", **more):
    """An experiment of the quick preset; values: row -> accuracies of the tasks, or one for all, of each seed."""
    part = make_parts(load_recipe("dgr", "quick"))[name]
    columns = [Column(task, "acc %", True) for task in part.tasks]
    runs = {}
    for row, seeds in {**{single(task): [50.0] for task in part.tasks}, **values}.items():
        tasks = [row.removeprefix("Single ")] if row.startswith("Single") else part.tasks
        if row.endswith(")"):
            tasks = row.partition("(")[2].removesuffix(")").split(", ")
        runs[row] = {
            seed: {t: {"acc %": v[t] if isinstance(v, dict) else v} for t in tasks} for seed, v in enumerate(seeds)
        }
    return PartOutcomes(part, columns, runs, runs, more.get("representations", {}), more.get("step_times", {}))


def outcomes_of(*parts):
    return Outcomes({part.part.name: part for part in parts}, {})


def test_changes_refer_to_single_tasks_of_the_same_seed():
    part = part_of({**{single(t): [50.0, 40.0] for t in TASKS}, "Vanilla": [55.0, 40.0], "Vanilla + DGR": [60.0, 42.0]})
    assert part.delta("Vanilla").values == pytest.approx((0.1, 0.0))
    assert part.gain("Vanilla + DGR", "Vanilla").values == pytest.approx((0.1, 0.05))
    assert part.pairs == ["Vanilla"] and part.of_seed(1).delta("Vanilla + DGR").values == pytest.approx((0.05,))
    assert part.single_change("Vanilla", COLUMNS[0]).values == pytest.approx((0.1, 0.0))


def test_rows_without_a_common_seed_are_missing_and_other_experiments_rows_are_not_taken():
    part = part_of({"Vanilla": [55.0]})
    with pytest.raises(NotTestableError, match=r"Faces, Split: no finished run of Vanilla \+ DGR"):
        part.delta("Vanilla + DGR")
    other = PartOutcomes(part.part, part.columns, {}, part.runs, {}, {})
    assert not other.has("Vanilla") and other.value("Single age", COLUMNS[0]).values == (50.0,)


def dummies_part(gains, base=50.0):
    """Table 4(a) of the quick preset's scenes; gains: (number of tasks, dummies) -> accuracy above the base."""
    every = make_parts(load_recipe("dgr", "quick"))["nyuv2_split"].tasks
    rows = {
        subset_row(tasks, count, every): [base + gains.get((len(tasks), count), 0.0)] * 3
        for tasks in subsets(every)
        for count in (0, 1, 3, 5)
    }
    return part_of({**{single(t): [50.0] * 3 for t in every}, **rows}, "nyuv2_split")


def test_table_4a_is_a_mean_over_all_choices_of_tasks():
    part = dummies_part({(2, 3): 5.0})
    assert part.subset_delta(2, 3).values == pytest.approx((0.1,) * 3) and part.subset_delta(1, 0).mean == 0
    assert part.subset_gain(2, 3).mean == pytest.approx(0.1) and part.subset_gain(3, 3).mean == 0


# ---- claims ----


def verdict(start, outcomes):
    (claim,) = [claim for claim in claims() if start in claim.text]
    return judge(claim, outcomes, outcomes.single_seeds()).verdict


def test_every_claim_of_the_paper_has_a_test():
    texts = [claim.text for claim in claims()]
    assert all(any(said.text in text for text in texts) for said in published_claims("dgr"))
    assert all(claim.test is not None for claim in claims())


def test_claims_on_what_did_not_run_are_not_testable():
    outcomes = outcomes_of(part_of({}, "digits"))
    for claim in claims():
        assert judge(claim, outcomes, outcomes.single_seeds()).verdict == Verdict.NOT_TESTABLE, claim.text


def methods_part(gain_of, name="faces", base=60.0):
    methods = make_parts(load_recipe("dgr", "quick"))[name].methods
    values = {m: [base] for m in methods} | {added(m): [base + gain_of.get(m, 1.0)] for m in methods}
    return part_of(values, name)


@pytest.mark.parametrize(
    ("start", "name", "good", "bad"),
    [
        ("in most combinations", "faces", dict.fromkeys(["DWA", "IMTL"], -1), dict.fromkeys(METHODS, -1)),
        ("DGR improved performance in two of the three", "faces", {}, {"DWA": -1}),
        ("except PCGrad, increased", "faces", {"PCGrad": -1}, {"PCGrad": -1, "DWA": -1}),
        ("IMTL was combined", "nyuv2_split", {"IMTL": 2}, {"IMTL": 2, "DWA": -1}),
        ("IMTL was combined", "nyuv2_split", {"IMTL": 2}, {"DWA": 2}),
        ("except for DWA", "cityscapes_split", {"DWA": -1, "CAGrad": 2}, {"IMTL": -1, "CAGrad": 2}),
        ("similar or better", "nyuv2_split", {}, {"Vanilla": -5}),
    ],
)
def test_claims_on_methods_can_hold_and_fail(start, name, good, bad):
    assert verdict(start, outcomes_of(methods_part(good, name))) == Verdict.SEEN
    assert verdict(start, outcomes_of(methods_part(bad, name))) == Verdict.NOT_SEEN


def test_the_claim_on_single_tasks_can_hold_and_fail():
    start = "outperformed the single-task model"
    assert verdict(start, outcomes_of(methods_part({}))) == Verdict.SEEN
    assert verdict(start, outcomes_of(methods_part({"DWA": -20.0}))) == Verdict.NOT_SEEN


@pytest.mark.parametrize(("sam", "expected"), [(0.5, Verdict.SEEN), (2.0, Verdict.NOT_SEEN), (-1.0, Verdict.NOT_SEEN)])
def test_the_claim_on_sam_and_pta_can_hold_and_fail(sam, expected):
    values = {}
    for method in ("Vanilla", "Auto-λ", "CAGrad", "Nash-MTL"):
        values |= {method: [60.0], added(method): [61.0]}
        values |= {added(method, "SAM"): [60.0 + sam], added(method, "PTA"): [60.5]}
    assert verdict("although DGR, SAM, and PTA", outcomes_of(part_of(values))) == expected


def test_claims_on_dummies_and_tasks_can_hold_and_fail():
    growing = {(size, 3): size * 1.0 for size in (1, 2, 3)} | {(3, 5): 2.0}
    assert verdict("more prominent", outcomes_of(dummies_part(growing))) == Verdict.SEEN
    assert verdict("Three dummies", outcomes_of(dummies_part(growing))) == Verdict.SEEN
    assert verdict("more prominent", outcomes_of(dummies_part({(1, 3): 2.0}))) == Verdict.NOT_SEEN
    assert verdict("Three dummies", outcomes_of(dummies_part({(1, 1): 2.0}))) == Verdict.NOT_SEEN


@pytest.mark.parametrize(("accuracy", "expected"), [(51.0, Verdict.SEEN), (49.0, Verdict.NOT_SEEN)])
def test_the_claim_on_one_task_can_hold_and_fail(accuracy, expected):
    rows = {f"d = {count} (left)": [accuracy] for count in (1, 3, 5)}
    assert verdict("slight improvement", outcomes_of(part_of(rows, "one_task"))) == expected


@pytest.mark.parametrize(("swin", "expected"), [(55.0, Verdict.SEEN), (45.0, Verdict.NOT_SEEN)])
def test_the_claim_on_swin_can_hold_and_fail(swin, expected):
    singles = {single(task): [swin] for task in ("normals", "semantics", "depth")}
    rows = {**singles, "Vanilla": [swin], "Vanilla + DGR": [swin + 1]}
    outcomes = outcomes_of(part_of({"Vanilla": [50.0]}, "nyuv2_split"), part_of(rows, "nyuv2_swin"))
    assert verdict("Swin backbone", outcomes) == expected


@pytest.mark.parametrize(("vanilla", "expected"), [(45.0, Verdict.SEEN), (55.0, Verdict.NOT_SEEN)])
def test_the_claim_on_pascal_can_hold_and_fail(vanilla, expected):
    rows = {"Vanilla": [vanilla], "Vanilla + DGR": [vanilla + 1]}
    outcomes = outcomes_of(part_of(rows, "pascal_split"), part_of(rows, "pascal_mtan"))
    assert verdict("although MTL had lower", outcomes) == expected


@pytest.mark.parametrize(("sam", "expected"), [(2.0, Verdict.SEEN), (1.1, Verdict.NOT_SEEN)])
def test_the_claim_on_time_can_hold_and_fail(sam, expected):
    part = part_of({"Vanilla": [50.0]}, step_times={"Vanilla": 1.0, "Vanilla + DGR": 1.2, "Vanilla + SAM": sam})
    assert verdict("takes little time", outcomes_of(part)) == expected


def representation(level, apart, order):
    accuracies = {t: dict(zip(CLASSIFIERS, (level - apart, level, level + apart), strict=True)) for t in TASKS}
    accuracies["age"] = {name: value + 2 * (level > 60) for name, value in accuracies["age"].items()}
    numbers = dict.fromkeys(TASKS, order)
    return Representation(accuracies, numbers, numbers, dict.fromkeys(TASKS, -order), numbers, {})


@pytest.mark.parametrize(
    "start",
    ["improves the universality", "consistently demonstrated", "more pronounced in the age", "less sensitive",
     "more clustered by their classes", "aligned by age order"],
)  # fmt: skip
def test_claims_on_representations_can_hold_and_fail(start):
    better, worse = representation(61, 1, 0.6), representation(60, 2, 0.5)
    rows = {row: [60.0] for method in METHODS for row in (method, added(method))}

    def outcomes(with_dgr, without):
        found = {row: {0: with_dgr if "DGR" in row else without} for row in rows}
        return outcomes_of(part_of(rows, representations=found))

    assert verdict(start, outcomes(better, worse)) == Verdict.SEEN
    assert verdict(start, outcomes(worse, better)) == Verdict.NOT_SEEN


# ---- representations ----


def test_classes_in_order_correlate_and_shuffled_ones_do_not():
    labels = torch.arange(5).repeat_interleave(4)
    noise = 0.01 * torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    ordered = Encoded(labels[:, None] * torch.tensor([1.0, 2.0]) + noise, labels)
    assert class_order(ordered) == pytest.approx(1.0, abs=0.01) and silhouette(ordered) > 0.9
    places = torch.tensor([2, 4, 0, 3, 1])[labels]
    shuffled = Encoded(places[:, None] * torch.tensor([1.0, 2.0]) + noise, labels)
    assert class_order(shuffled) < 0.2 and silhouette(shuffled) > 0.9
    assert math.isnan(class_order(Encoded(noise, labels % 2)))
    assert math.isnan(silhouette(Encoded(noise, torch.zeros(20, dtype=torch.int64))))


# ---- from end to end ----


def test_a_tiny_study_is_run_measured_and_reported(finished):
    description = read_description(finished)
    assert set(description["columns"]) == {"strength in faces", "faces", "nyuv2_split", "nyuv2_mtan", "one_task"}
    measured = list(finished.glob("runs/faces/*/representation.json"))
    assert len(measured) == 11 and not list(finished.glob("runs/nyuv2*/*/representation.json"))
    shown = json.loads((finished / "runs/faces/Vanilla-DGR-seed0/representation.json").read_text())
    assert len(shown["points"]["age"]) == 40 and set(shown["excess"]) == set(TASKS)
    assert json.loads((finished / "runs/faces/CAGrad-seed0/representation.json").read_text())["points"] == {}
    text = report_folder(finished).read_text()
    for claim in claims():
        assert claim.reference in text
    for expected in (
        "Table 1. faces, Split",
        "Table 2, right",
        "Table 4(a)",
        "Figure 2",
        "Figure 3(b)",
        "d = 3",
        "Chosen λ",
        "the paper: ImageNet",
        "+6.55 ≠",
        "Its numbers say nothing about the methods",
    ):
        assert expected in text, expected
    assert "http" not in text and text.count("data:image/svg+xml;base64,") == 5


def test_a_finished_study_is_not_run_or_measured_again(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/*/*.json")}
    DGRStudy(replace(load_recipe("dgr", "tiny"), seeds=1)).run(finished, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_unfinished_study_is_reported(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "part")
    for folder in ("nyuv2-split", "nyuv2-mtan", "one-task"):
        shutil.rmtree(tmp_path / "part" / "runs" / folder)
    for path in (tmp_path / "part" / "runs" / "faces").glob("Vanilla-SAM*"):
        shutil.rmtree(path)
    (tmp_path / "part" / "step_times.json").unlink()
    text = report_folder(tmp_path / "part").read_text()
    assert "Unfinished: 10 of" in text and "Runtime" not in text and "Table 4(a), last row" not in text
    shutil.rmtree(tmp_path / "part" / "runs" / "faces")
    with pytest.raises(ValueError, match="no run of an experiment is finished yet"):
        report_folder(tmp_path / "part")


def test_the_paper_is_beside_our_numbers_on_its_data():
    part = part_of({"Vanilla": [55.0], "Vanilla + DGR": [60.0]})
    ours = tables.beside_numbers(part)
    assert list(ours) == ["Single", "Vanilla", "Vanilla + DGR"]
    assert ours["Vanilla"]["Δ_MTL"].mean == pytest.approx(0.1) and ours["Single"]["age acc %"].mean == 50


@pytest.mark.parametrize(
    ("scores", "expected"), [((0.1, 0.2), True), ((0.3, -0.1), False), ((-0.1, -0.2), False), ((0.1,), False)]
)
def test_a_strength_is_clear_if_every_seed_gains(scores, expected):
    assert tables.is_clear(Decision("λ = 0.1", 0.1, {"λ = 0.1": spread(scores)})) == expected


def test_step_times_are_of_the_tasks_together_or_of_the_one_task():
    times = {"Vanilla": 1.0, "Vanilla + DGR": 1.5, "Single age": 0.4, "d = 1 (age)": 0.5, "Vanilla (age, gender)": 0.7}
    table = tables.runtime_table(part_of({}, step_times=times))
    assert [row[0] for row in table.rows] == ["Vanilla", "Vanilla + DGR"] and "relative to Vanilla" in table.caption
    table = tables.runtime_table(part_of({}, "one_task", step_times={"Single left": 1.0, "d = 3 (left)": 1.2}))
    assert [row[0] for row in table.rows] == ["Single left", "d = 3 (left)"] and "without DGR" in table.caption


def test_the_command_line_names_the_study(capsys):
    assert main(["study", "dgr", "--preset", "full"]) == 1
    assert (
        "--preset full needs --data, one of cityscapes, class_folder, nyuv2, pascal, utkface" in capsys.readouterr().err
    )
