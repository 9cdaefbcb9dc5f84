"""The SAAL study: recipes, rows, what claims hold and fail on, and a tiny study from end to end."""

import json
import shutil
from dataclasses import replace

import pytest

from mtl_ext.cli import main
from mtl_ext.studies import SaalStudy, load_recipe, recipe_names, report_folder
from mtl_ext.studies.changes import Column
from mtl_ext.studies.claims import NotTestableError, Verdict, judge
from mtl_ext.studies.published import published_claims, published_table
from mtl_ext.studies.runs import RunRecord, with_seeds
from mtl_ext.studies.saal import tables
from mtl_ext.studies.saal.claims import claims
from mtl_ext.studies.saal.measures import ANGLE, COEFFICIENTS, MEASURES, SIMILARITY
from mtl_ext.studies.saal.outcomes import STL, Outcomes, PartOutcomes
from mtl_ext.studies.saal.protocol import BOTTOM, EQUAL, METHODS, Part, pair_row, parts, sharing_row
from mtl_ext.studies.saal.relationships import chance_of_at_least
from mtl_ext.studies.study import read_description

SCENES = ("semantics", "depth", "normals")
ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair",
)  # fmt: skip


def study(name, **changes):
    return SaalStudy(replace(load_recipe("saal", name), **changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of the tiny preset, with one seed."""
    out = tmp_path_factory.mktemp("study")
    study("tiny", seeds=1).run(out, 1)
    return out


# ---- recipes and rows ----


@pytest.mark.parametrize("name", recipe_names("saal"))
def test_every_recipe_describes_runs_in_folders_of_their_own_as_the_paper_has_them(name):
    recipe = load_recipe("saal", name)
    runs = SaalStudy(recipe).runs
    assert len({run.folder for run in runs}) == len(runs) and recipe.notes
    for part in parts(recipe):
        train = part.recipe.train
        assert train["model"] == "half_shared" and train["meta_data"].startswith("holdout:")
        assert train["select"] == "best_val_delta" and part.table in ("table_1", "table_2", "table_3")


@pytest.mark.parametrize(
    ("name", "table", "epochs", "depth"),
    [("nyuv2", "table_1", 200, 50), ("cityscapes", "table_2", 200, 50), ("celeba", "table_3", 25, 18)],
)
def test_full_recipes_have_the_papers_settings_tasks_and_metrics(name, table, epochs, depth):
    (part,) = parts(load_recipe("saal", name))
    config = part.shared_bottom()
    assert (config.lr, config.schedule, config.epochs) == (0.1, "cosine", epochs)
    assert config.model_options["depth"] == depth and part.recipe.seeds == 3
    columns = published_table("saal", table).columns
    assert part.tasks == tuple(dict.fromkeys(column.task for column in columns))
    metrics = part.experiments({})[f"{part.name} methods"].metrics
    assert not metrics or list(metrics) == [f"{column.task}/{column.metric}" for column in columns]
    outcome = PartOutcomes(part, list(columns), {})
    assert tables.is_papers_data(outcome, published_table("saal", table))


def test_celeba_has_a_tenth_of_the_training_images_and_the_first_nine_attributes():
    (part,) = parts(load_recipe("saal", "celeba"))
    assert part.tasks == ATTRIBUTES == part.runtime_tasks
    assert part.shared_bottom().data_options["fraction"] == 0.1
    assert len(part.experiments({})["CelebA pairs"].rows) == 36


def test_the_quick_preset_compares_three_and_nine_tasks_with_three_seeds():
    scenes, faces = parts(load_recipe("saal", "quick"))
    assert (scenes.tasks, faces.runtime_tasks) == (SCENES, ATTRIBUTES)
    assert set(faces.tasks) < set(ATTRIBUTES) and scenes.recipe.seeds == faces.recipe.seeds == 3


def test_rows_wait_for_single_tasks_and_for_pairs():
    (part,) = parts(load_recipe("saal", "tiny"))
    first = part.experiments({})
    assert not first["scenes single tasks"].after and first["scenes pairs"].after == ("scenes single tasks",)
    assert set(first["scenes methods"].after) == {"scenes single tasks", "scenes pairs"}
    single = {0: {task: {"x": 1.0} for task in SCENES}}
    changes = {"depth->semantics": 0.1, "semantics->depth": -0.1, "normals->depth": 0.0}
    given = part.experiments({"scenes single tasks": single, "scenes pairs": changes})
    rows = given["scenes methods"].rows
    assert {name: rows[name].method for name in METHODS} == METHODS
    assert rows["SAAL_e"].self_auxiliaries == rows["SAAL_ew"].self_auxiliaries == ("depth->semantics",)
    assert rows["SAAL_w"].self_auxiliaries == ("all",) and not rows["CAGrad"].self_auxiliaries
    assert {row: rows[row].model_options["shared_blocks"] for row in (EQUAL, BOTTOM)} == {EQUAL: 3, BOTTOM: 5}
    assert all(config.baseline == single[0] for config in rows.values())
    assert rows.keys() == first["scenes methods"].rows.keys()
    single_rows = given["scenes single tasks"].rows
    assert all(config.tasks == (task,) and config.baseline is None for task, config in single_rows.items())


def test_figure_1_has_all_numbers_of_shared_blocks_once():
    (part,) = parts(load_recipe("saal", "tiny"))
    rows = part.experiments({})["scenes sharing"].rows
    shared = {row: config.model_options["shared_blocks"] for row, config in rows.items()}
    typical = {row: n for row, n in shared.items() if row.startswith("typical")}
    assert sorted(typical.values()) == [1, 2, 4]  # 0, 3 and 5 are the single tasks and rows of the methods
    assert sorted(n for row, n in shared.items() if row not in typical) == [0, 1, 2, 4, 5]
    assert all(rows[row].method == ("EW" if row in typical else "SAALe") for row in rows)


def test_steps_of_nine_tasks_are_timed_with_as_large_a_share_of_pairs_as_was_useful():
    _, faces = parts(load_recipe("saal", "quick"))
    assert len(faces.timed_auxiliaries(["x"] * 3)) == 18 and faces.timed_auxiliaries([]) == ()
    assert len(set(faces.timed_auxiliaries(["x"] * 12))) == 72
    (tiny,) = parts(load_recipe("saal", "tiny"))
    assert tiny.timed_auxiliaries(["depth->normals"]) == ("depth->normals",)


def test_methods_can_be_left_out_but_equal_weighting_not():
    (part,) = parts(load_recipe("saal", "tiny"), ["SAAL_e"])
    assert list(part.experiments({})["scenes methods"].rows) == [EQUAL, "SAAL_e", BOTTOM]


@pytest.mark.parametrize(
    ("options", "methods", "message"),
    [
        ({"tasks": ["a", "b"], "roles": {}}, None, "has the option 'roles', expected tasks, metrics"),
        ({"tasks": ["a"]}, None, r"tasks is \('a',\), expected at least two"),
        ({"tasks": ["a", "b"]}, ["SAAL"], "methods has 'SAAL', expected names out of Equal, Uncertainty"),
    ],
)
def test_recipes_and_methods_that_do_not_fit_are_refused(options, methods, message):
    with pytest.raises(ValueError, match=message):
        Part("x", replace(load_recipe("saal", "tiny"), options=options), methods)


# ---- outcomes ----

COLUMNS = {
    "scenes": [
        Column("semantics", "mIoU %", True),
        Column("depth", "abs err", False),
        Column("depth", "rel err", False),
        Column("normals", "mean °", False),
    ],
    "faces": [Column(task, "acc %", True) for task in ("Arched_Eyebrows", "Attractive", "Big_Nose", "Black_Hair")],
}


def measures_of(columns, changes):
    """Measures that are better than 50 in everything by the changes of their tasks, or by one for all."""
    found = {}
    for column in columns:
        change = changes.get(column.task) if isinstance(changes, dict) else changes
        if change is not None:
            sign = 1 if column.higher_is_better else -1
            found.setdefault(column.task, {})[column.metric] = 50 * (1 + sign * change)
    return found


def part_of(name="scenes", methods=None, pairs=None, sharing=None, **more):
    """A data set of the quick preset; changes by row, one for all seeds or one per seed in a list."""
    part = {part.name: part for part in parts(load_recipe("saal", "quick"))}[name]
    columns, seeds = COLUMNS[name], more.pop("seeds", 3)

    def records(rows):
        each = {row: values if isinstance(values, list) else [values] * seeds for row, values in rows.items()}
        made = {
            (row, seed): measures_of(columns, value)
            for row, values in each.items()
            for seed, value in enumerate(values)
        }
        return [RunRecord(row, seed, value, [], None, value) for (row, seed), value in made.items()]

    single = records({task: {task: 0.0} for task in part.tasks})
    rows = {}
    for change, value in (pairs or {}).items():
        source, target = change.split("->")
        row = pair_row(*sorted((source, target), key=part.tasks.index))
        for seed, number in enumerate(value if isinstance(value, list) else [value] * seeds):
            rows.setdefault(row, [{} for _ in range(seeds)])[seed][target] = number
    kinds = {"methods": methods or {}, "sharing": sharing or {}, "pairs": rows}
    return PartOutcomes(
        part, columns, {"single tasks": single} | {kind: records(r) for kind, r in kinds.items()}, **more
    )


def all_methods(**changes):
    return {name: changes.get(name, 0.0) for name in (*METHODS, BOTTOM)}


def pairs_of(value_of, tasks=SCENES):
    return {f"{s}->{t}": value_of(s, t) for s in tasks for t in tasks if s != t}


def test_changes_are_means_over_metrics_then_tasks_against_the_same_seed():
    part = part_of(methods={EQUAL: [{"semantics": 0.3, "depth": 0.0, "normals": -0.06}, 0.0]})
    assert part.delta(EQUAL).values == pytest.approx((0.08, 0.0))
    assert part.change(EQUAL, "normals").values == pytest.approx((-0.06, 0.0))
    assert part.value(STL, part.columns[0]).values == (50.0,) * 3
    assert part.single(1).delta(EQUAL).values == pytest.approx((0.0,)) and part.seeds == [0, 1, 2]
    with pytest.raises(NotTestableError, match="scenes: no finished run of SAAL_e"):
        part.need("SAAL_e")


def test_the_enumeration_is_the_change_of_the_target_in_the_pairs_network():
    wanted = pairs_of(lambda s, t: 0.1 * SCENES.index(s) - 0.05 * SCENES.index(t))
    found = part_of(pairs=wanted).enumeration().values
    assert found == pytest.approx(wanted)


def test_curves_of_figure_1_meet_single_tasks_and_the_methods_rows():
    sharing = {sharing_row("typical", n): 0.1 * n for n in (1, 2, 4)}
    part = part_of(methods={EQUAL: 0.3, BOTTOM: 0.5}, sharing=sharing)
    points = part.sharing_points("typical")
    assert {n: round(part.delta(row).mean, 9) for n, row in points.items()} == {n: round(0.1 * n, 9) for n in range(6)}
    assert part.sharing_points("asymmetric") == {}


# ---- claims ----


def verdict(beginning, *found):
    outcomes = Outcomes(found)
    (claim,) = [claim for claim in claims() if claim.text.startswith(beginning)]
    return judge(claim, outcomes, outcomes.single_seeds())


def test_every_claim_of_the_paper_is_judged_in_its_order():
    texts = [claim.text for claim in claims()]
    said = [claim.text for claim in published_claims("saal")]
    assert [any(text.startswith(one) for text in texts[3:]) for one in said] == [True] * len(said)


def test_claims_on_what_did_not_run_are_not_testable():
    outcomes = Outcomes([part_of()])
    for claim in claims():
        assert judge(claim, outcomes, outcomes.single_seeds()).verdict == Verdict.NOT_TESTABLE, claim.text


def test_saal_e_has_to_hold_its_own_on_every_data_set():
    good, bad = all_methods(SAAL_e=[0.1, 0.1, -0.1]), all_methods(SAAL_e=-0.1)
    found = verdict("In short: SAAL_e", part_of(methods=good), part_of("faces", methods=good))
    assert (found.verdict, found.seeds_holding, found.seeds) == (Verdict.SEEN, 2, 3)
    found = verdict("In short: SAAL_e", part_of(methods=good), part_of("faces", methods=bad))
    assert found.verdict == Verdict.NOT_SEEN and "faces -10.0%" in found.numbers


def test_relationships_are_asymmetric_if_more_pairs_are_than_chance_gives():
    one_way = pairs_of(lambda s, t: 0.1 if SCENES.index(s) < SCENES.index(t) else -0.1)
    found = verdict("In short: task relationships", part_of(pairs=one_way))
    assert found.verdict == Verdict.SEEN and "3 of 3 pairs with all of 3 seeds" in found.numbers and found.seeds == 0
    both_ways = pairs_of(lambda s, t: 0.1)
    assert verdict("In short: task relationships", part_of(pairs=both_ways)).verdict == Verdict.NOT_SEEN
    undecided = pairs_of(lambda s, t: [0.1, -0.1, 0.1] if s < t else [-0.1, 0.1, 0.1])
    assert verdict("In short: task relationships", part_of(pairs=undecided)).verdict == Verdict.NOT_SEEN


def test_the_chance_of_patterns_is_binomial():
    assert chance_of_at_least(0, [(3, 0.1)]) == pytest.approx(1)
    assert chance_of_at_least(1, [(3, 0.1)]) == pytest.approx(1 - 0.9**3)
    assert chance_of_at_least(2, [(1, 0.1), (1, 0.2)]) == pytest.approx(0.02)
    assert chance_of_at_least(3, [(2, 0.5)]) == 0


def measured(enumeration, **orders):
    """Measures that order the sources of each target as the enumeration does (1) or the other way round (-1)."""
    names = {"weights": COEFFICIENTS, "angles": ANGLE, "features": SIMILARITY}
    found = {name: {0: {pair: 50 + 100 * v for pair, v in enumeration.items()}} for name in MEASURES}
    for key, sign in orders.items():
        sign = -sign if key == "angles" else sign  # a small angle is close
        found[names[key]] = {0: {pair: 50 + 100 * sign * v for pair, v in enumeration.items()}}
    return found


@pytest.mark.parametrize(("weights", "angles", "seen"), [(1, -1, True), (-1, 1, False), (1, 1, False)])
def test_weights_have_to_agree_better_than_angles(weights, angles, seen):
    pairs = pairs_of(lambda s, t: 0.1 * SCENES.index(s) - 0.05 * SCENES.index(t))
    part = part_of(pairs=pairs, measures=measured(pairs, weights=weights, angles=angles))
    found = verdict("In short: the weights", part)
    assert (found.verdict == Verdict.SEEN) == seen and f"weights {weights:+.2f}, angles {angles:+.2f}" in found.numbers


def test_claims_on_figure_1_can_hold_and_fail():
    def curves(typical, asymmetric):
        sharing = {sharing_row("typical", n): typical(n) for n in (1, 2, 4)}
        sharing |= {sharing_row("asymmetric", n): asymmetric(n) for n in (0, 1, 2, 4, 5)}
        return part_of(methods={EQUAL: typical(3), BOTTOM: typical(5), "SAAL_e": asymmetric(3)}, sharing=sharing)

    as_said = curves(lambda n: {"semantics": 0.02 * n, "depth": 0.03 * n, "normals": -0.05 * n}, lambda n: 0.1)
    other = curves(lambda n: 0.1, lambda n: 0.02)
    for beginning in ("The asymmetric MTL learning scheme", "as more layers are shared"):
        assert verdict(beginning, as_said).verdict == Verdict.SEEN
        assert verdict(beginning, other).verdict == Verdict.NOT_SEEN


@pytest.mark.parametrize(
    ("beginning", "name", "good", "bad"),
    [
        ("SAAL_ew substantially", "scenes", {"SAAL_ew": 0.3, "SAAL_e": 0.2}, {"SAAL_e": 0.3, "SAAL_ew": 0.2}),
        ("SAAL_w, SAAL_ew and SAAL_e achieved", "faces",
         {"SAAL_w": 0.4, "SAAL_ew": 0.3, "PCGrad": 0.2, "SAAL_e": 0.1}, {"SAAL_w": 0.4, "SAAL_ew": 0.3, "SAAL_e": 0.2}),
        ("SAAL_w outperforms all existing", "scenes",
         {"SAAL_w": {"semantics": 0, "depth": 0.2, "normals": -0.1}, "DWA": 0.1}, {"SAAL_w": 0.2}),
        ("The learning strategy that best", "scenes", {EQUAL: 0.1}, {"DWA": 0.1}),
    ],
)  # fmt: skip
def test_claims_on_places_can_hold_and_fail(beginning, name, good, bad):
    assert verdict(beginning, part_of(name, methods=all_methods(**good))).verdict == Verdict.SEEN
    assert verdict(beginning, part_of(name, methods=all_methods(**bad))).verdict == Verdict.NOT_SEEN


def test_the_claim_on_signs_can_hold_and_fail():
    as_said = {name: {"semantics": 0.1, "depth": 0.1, "normals": -0.1} for name in all_methods()}
    assert verdict("all methods improved", part_of(methods=as_said)).verdict == Verdict.SEEN
    as_said[EQUAL] = 0.1
    found = verdict("all methods improved", part_of(methods=as_said))
    assert found.verdict == Verdict.NOT_SEEN
    assert found.numbers == "of 11 methods gain: segmentation 11, depth 11, normals 1"


def test_claims_on_times_can_hold_and_fail_and_are_of_no_seed():
    few = {**dict.fromkeys(METHODS, 1.0), "SAAL_e": 1.4, "SAAL_w": 6.0, "SAAL_ew": 5.0}
    more = {name: 2 * time for name, time in few.items()}
    for beginning in ("SAAL_w was the slowest", "All SAAL strategies were slower"):
        found = verdict(beginning, part_of(step_times=few), part_of("faces", step_times=more))
        assert found.verdict == Verdict.SEEN and found.seeds == 0
        less = {**few, "SAAL_ew": 0.5}
        found = verdict(beginning, part_of(step_times=few), part_of("faces", step_times=less))
        assert found.verdict == Verdict.NOT_SEEN


def test_claims_on_relationships_can_hold_and_fail():
    by_target = pairs_of(lambda s, t: {"semantics": -0.1, "depth": 0.1, "normals": 0.0}[t])
    by_source = pairs_of(lambda s, t: {"semantics": -0.1, "depth": 0.1, "normals": 0.0}[s])
    for beginning in ("both datasets exhibiting", "task relationships appear"):
        assert verdict(beginning, part_of(pairs=by_target)).verdict == Verdict.SEEN
        assert verdict(beginning, part_of(pairs=by_source)).verdict == Verdict.NOT_SEEN


def test_claims_on_table_5_can_hold_and_fail():
    pairs = pairs_of(lambda s, t: 0.1 * SCENES.index(s) - 0.05 * SCENES.index(t))
    perfect = part_of(pairs=pairs, measures=measured(pairs))
    against = {name: {0: {pair: -v for pair, v in pairs.items()}} for name in MEASURES}
    against[ANGLE] = {0: pairs}
    against = part_of(pairs=pairs, measures=against)
    assert verdict("SAAL_w coefficients and feature", perfect).verdict == Verdict.SEEN
    assert verdict("SAAL_w coefficients and feature", against).verdict == Verdict.NOT_SEEN
    assert verdict("look-ahead loss and gradient angle", perfect).verdict == Verdict.NOT_SEEN
    assert verdict("look-ahead loss and gradient angle", against).verdict == Verdict.SEEN


# ---- from end to end ----


def test_a_tiny_study_is_run_measured_and_reported(finished):
    description = read_description(finished)
    assert set(description["columns"]) == {
        f"scenes {kind}" for kind in ("single tasks", "pairs", "methods", "sharing", "runtime")
    }
    stored = json.loads((finished / "relationships" / "scenes-seed0.json").read_text())
    assert set(stored["measures"]) == set(MEASURES) - {COEFFICIENTS}
    run = json.loads((finished / "runs/scenes-methods/CAGrad-seed0/results.json").read_text())
    single = json.loads((finished / "runs/scenes-single-tasks/depth-seed0/results.json").read_text())
    assert run["config"]["baseline"]["depth"] == single["epochs"][single["selected_epoch"] - 1]["val"]["depth"]
    text = report_folder(finished).read_text()
    for claim in claims():
        assert claim.reference in text
    for expected in (
        "Table 1 (NYUv2 in the paper), here scenes",
        "Figure 1.",
        "Figure 3 and the measures of Table 5",
        "Table 4.",
        "Table 5.",
        "Shared bottom",
        "+12.14 ≠",
        "only its sign and order compare",
        "On scenes, SAAL_w has 6 self-auxiliaries",
        "Its numbers say nothing about the methods",
    ):
        assert expected in text, expected
    assert "http" not in text and text.count("data:image/svg+xml;base64,") == 3


def test_a_finished_study_is_not_run_or_measured_again(finished):
    paths = [*finished.glob("runs/*/*/*.json"), *finished.glob("relationships/*.json"), finished / "step_times.json"]
    before = {path: path.stat().st_mtime_ns for path in paths}
    study("tiny", seeds=1).run(finished, 1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_unfinished_study_is_reported(finished, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(finished, part)
    shutil.rmtree(part / "relationships")
    shutil.rmtree(part / "runs" / "scenes-sharing")
    (part / "step_times.json").unlink()
    text = report_folder(part).read_text()
    assert "Unfinished: 17 of 25 runs" in text and "Not enough runs are finished yet" in text
    assert "What a step costs" not in text
    shutil.rmtree(part / "runs" / "scenes-methods")
    with pytest.raises(ValueError, match="no method has a finished run"):
        report_folder(part)


def test_a_failed_single_task_is_named(tmp_path):
    own = study("tiny", seeds=1)
    rows = own.experiments({})["scenes single tasks"].rows
    for run in with_seeds(rows, 1, "scenes single tasks"):
        folder = tmp_path / run.folder
        folder.mkdir(parents=True)
        config = json.loads(json.dumps(run.config.__dict__))
        (folder / "results.json").write_text(json.dumps({"config": config, "failure": "the loss is nan"}))
    with pytest.raises(ValueError, match=r"scenes: a single-task run failed with every seed, .*nan.*lower lr"):
        own.run(tmp_path, 1)


def test_the_command_line_names_the_study(capsys):
    assert main(["study", "saal", "--preset", "full"]) == 1
    assert "--preset full needs --data, one of celeba, cityscapes, nyuv2" in capsys.readouterr().err
