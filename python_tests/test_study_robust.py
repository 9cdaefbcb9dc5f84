"""The robust study: published tables, protocol, runs and resume, claims, report."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtl_ext.cli import main
from mtl_ext.cli.study import choose_recipe
from mtl_ext.methods import METHODS
from mtl_ext.studies import RobustStudy, load_recipe, read_recipe, recipe_names, report_folder
from mtl_ext.studies.changes import Column
from mtl_ext.studies.claims import Claim, Finding, NotTestableError, Verdict, judge
from mtl_ext.studies.published import change_range
from mtl_ext.studies.recipe import make_recipe
from mtl_ext.studies.robust import paper
from mtl_ext.studies.robust.claims import claims
from mtl_ext.studies.robust.outcomes import Outcomes, chance_level, level_correlations
from mtl_ext.studies.robust.protocol import BASELINE, NOT_REPORTED, variants
from mtl_ext.studies.runs import RunRecord, read_record, run_one, with_seeds
from mtl_ext.studies.spread import spread

METHODS_USED = ["PCGrad", "RLW"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of the baseline, PCGrad at both levels and RLW, with two seeds."""
    out = tmp_path_factory.mktemp("study")
    counts = []
    study = RobustStudy(load_recipe("robust", "tiny"), METHODS_USED)
    study.run(out, 1, counts.append)
    assert counts == [0] + [1] * 8
    return out


# ---- published numbers ----


def test_table_1_has_the_papers_methods_with_an_arrow_for_every_value():
    content = paper.paper()
    reported = [variant.name for variant in variants() if variant.reported]
    assert list(content["table_1"]["rows"]) and set(content["table_1"]["rows"]) == set(reported)
    assert sum(name.startswith("(rep)") for name in reported) == 8 and len(reported) == 1 + 13 + 8
    for name, row in content["table_1"]["rows"].items():
        assert len(row["values"]) == 6 and len(row.get("arrows", "")) == (0 if name == BASELINE else 6)


def test_arrows_follow_a_relative_change_of_one_percent_not_the_difference_that_the_caption_states():
    content = paper.paper()
    assert paper.relative_arrows(content) == []
    found = {(entry.row, entry.column) for entry in paper.absolute_arrows(content)}
    assert len(found) == 8 and ("PCGrad", "BBox mAR") in found and ("(rep) CosReg", "BBox mAP") in found


def test_table_2_follows_from_table_1_and_a_changed_entry_is_flagged():
    content = paper.paper()
    assert paper.relative_changes(content) == []
    content["table_2"]["rows"]["MGDA"][0] = 14.9
    (entry,) = paper.relative_changes(content)
    assert (entry.row, entry.column, entry.printed) == ("MGDA", "BBox mAP", "+14.9%")


def test_table_3_holds_shares_of_the_pairs_of_21_methods():
    content = paper.paper()
    assert paper.ranking_values(content) == []
    content["table_3"]["rows"]["FD"][0] = 0.5695
    assert [entry.row for entry in paper.ranking_values(content)] == ["FD"]


def test_the_papers_lists_follow_from_table_1():
    content = paper.paper()
    assert paper.winners(content) == [
        "GradVac",
        "GradDrop",
        "IMTL",
        "DWA",
        "(rep) MGDA",
        "(rep) CAGrad",
        "(rep) CosReg",
    ]
    often = {name for name, count in paper.top_three(content).items() if count >= 3}
    assert often == {"GradVac", "IMTL", "(rep) MGDA"}


def test_the_range_of_a_change_contains_it():
    low, high = change_range(0.423, 0.371)
    assert low < 0.423 / 0.371 - 1 < high and high - low < 0.006


# ---- Eq. 5 ----


def test_inner_products_at_parameter_level_are_eq_5_of_feature_level_gradients():
    # One linear layer z = W x is the trunk; M is the transposed Jacobian of z with respect to W.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    z = x @ weight.T
    losses = [z.square().sum(), z.sin().sum()]
    a, b = (torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses)
    at_weight = [torch.autograd.grad(loss, weight, retain_graph=True)[0].flatten() for loss in losses]
    jacobian = torch.autograd.functional.jacobian(lambda w: (x @ w.T).flatten(), weight.detach()).flatten(1)
    m = jacobian.T
    eq5 = ((m.T @ m) * torch.outer(a, b)).sum()
    torch.testing.assert_close(torch.dot(*at_weight), eq5)
    assert not torch.isclose(torch.dot(a, b), eq5)


# ---- protocol and recipes ----


def test_27_rows_at_both_levels():
    rows = variants()
    assert len(rows) == 27 and len({row.name for row in rows}) == 27
    assert [row.name for row in rows if row.level == "feature" and not row.name.startswith("(rep)")] == []
    assert {row.name for row in rows if not row.reported} == set(NOT_REPORTED)
    for row in rows:
        expected = "gradient" if row.name.startswith("(rep)") else METHODS[row.method].level
        assert METHODS[row.method].level == expected


def test_folders_of_runs_differ():
    runs = RobustStudy(load_recipe("robust", "quick")).runs
    assert len({run.folder for run in runs}) == 81 and all(run.folder.startswith("runs/") for run in runs)


@pytest.mark.parametrize("name", recipe_names("robust"))
def test_every_recipe_describes_runs(name):
    recipe = load_recipe("robust", name)
    rows = RobustStudy(recipe).experiments({})[""].rows
    assert rows["(rep) MGDA"].method == "MGDA" and rows["(rep) MGDA"].level == "feature"
    assert recipe.notes and recipe.groups["segmentation"]


def test_the_quick_preset_has_enough_samples():
    train = load_recipe("robust", "quick").train
    steps = train["data_options"]["train_size"] // train["batch_size"] * train["epochs"]
    assert steps // train["monitor_every"] >= 50


def test_recipes_refuse_what_they_cannot_mean(tmp_path):
    with pytest.raises(ValueError, match="study robust has no recipe 'huge', it has cityscapes"):
        load_recipe("robust", "huge")
    with pytest.raises(ValueError, match="a recipe has no field 'speed'"):
        make_recipe({"speed": 1})
    with pytest.raises(ValueError, match="the recipe has no notes"):
        make_recipe({"name": "x"})
    with pytest.raises(ValueError, match=r"train has \['method'\]"):
        make_recipe({"name": "x", "notes": [], "seeds": 1, "train": {"method": "EW"}})
    with pytest.raises(ValueError, match="seeds is 0"):
        replace(load_recipe("robust", "tiny"), seeds=0)
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds list, expected a recipe's fields"):
        read_recipe(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="methods has 'SGD', expected names out of PCGrad"):
        variants(["SGD"])


def test_options_choose_a_recipe(tmp_path):
    def choose(preset="quick", data=None, root=None, file=None, seeds=None, device=None):
        return choose_recipe("robust", preset, data, root, file, seeds, device)

    assert choose(seeds=5).seeds == 5 and choose().seeds == 3
    assert choose("full", "nyuv2", tmp_path).train["data_options"] == {"root": str(tmp_path)}
    assert choose(device="cuda").train["device"] == "cuda"
    with pytest.raises(ValueError, match="the data nyuv2 need --root"):
        choose("full", "nyuv2")
    with pytest.raises(ValueError, match="--preset full needs --data, one of cityscapes"):
        choose("full")
    with pytest.raises(ValueError, match="--data nyuv2 needs --preset full"):
        choose("quick", "nyuv2")
    with pytest.raises(ValueError, match="the data are made here"):
        choose(root=tmp_path)


# ---- runs ----


def test_a_finished_study_is_not_run_again(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/results.json")}
    counts = []
    RobustStudy(load_recipe("robust", "tiny"), METHODS_USED).run(finished, 1, counts.append)
    assert counts == [8] and len(before) == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_a_missing_run_is_run_again_and_gives_the_same(finished, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    gone = out / "runs" / "rep-PCGrad-seed1"
    before = json.loads((gone / "results.json").read_text())
    shutil.rmtree(gone)
    others = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}
    counts = []
    RobustStudy(load_recipe("robust", "tiny"), METHODS_USED).run(out, 1, counts.append)
    assert counts == [7, 1]
    assert {path: path.stat().st_mtime_ns for path in others} == others
    after = json.loads((gone / "results.json").read_text())
    assert after["epochs"] == before["epochs"] and after["similarity"] == before["similarity"]


def test_results_of_another_configuration_and_broken_ones_are_refused(finished, tmp_path):
    recipe = load_recipe("robust", "tiny")
    other = RobustStudy(replace(recipe, train={**recipe.train, "lr": 0.1}), METHODS_USED)
    with pytest.raises(
        ValueError, match=r"Baseline-seed0.results.json is of a run with other lr: choose another --out"
    ):
        other.run(finished, 1)
    run = RobustStudy(recipe, METHODS_USED).runs[0]
    (tmp_path / run.folder).mkdir(parents=True)
    (tmp_path / run.folder / "results.json").write_text('{"config": {}, "epochs": [], "selected_epoch": 1}')
    with pytest.raises(ValueError, match=r"is no result of a run .IndexError"):
        read_record(tmp_path, run)


def test_a_run_that_diverges_is_a_result(tmp_path):
    recipe = load_recipe("robust", "tiny")
    recipe = replace(recipe, train={**recipe.train, "optimizer": "SGD", "lr": 1e30})
    (run,) = with_seeds({BASELINE: recipe.config("EW", "parameter")}, 1)
    run_one(run.config, tmp_path / run.folder)
    record = read_record(tmp_path, run)
    assert record.failure and "lower lr" in record.failure and record.measures == {}


# ---- outcomes and claims ----

COLUMNS = [Column("seg", "mIoU", True), Column("depth", "err", False)]


def record(row, seed, seg, depth, **similarity):
    samples = {f"{level}_{name}": 0.5 for level in ("parameter", "feature") for name in ("gds", "gms", "fd")}
    return RunRecord(row, seed, {"seg": {"mIoU": seg}, "depth": {"err": depth}}, [samples | similarity])


def outcomes(*records):
    return Outcomes(variants(), COLUMNS, records, ["seg"])


def test_changes_are_paired_by_seed_and_positive_where_better():
    found = outcomes(
        record(BASELINE, 0, 50, 2), record(BASELINE, 1, 40, 1), record("MGDA", 0, 60, 1), record("MGDA", 1, 40, 1.5)
    )
    seg, depth = COLUMNS
    assert found.change("MGDA", seg).values == pytest.approx((0.2, 0.0))
    assert found.change("MGDA", depth).values == pytest.approx((0.5, -0.5))
    assert found.mean_change("MGDA").values == pytest.approx((0.35, -0.25))
    assert found.winners() == [] and found.top_three() == {"MGDA": 2}


def test_only_common_seeds_count_and_failed_runs_do_not():
    failed = RunRecord("MGDA", 1, {}, [], "the loss is nan")
    found = outcomes(record(BASELINE, 0, 50, 2), record(BASELINE, 1, 40, 1), record("MGDA", 0, 60, 1), failed)
    assert found.seeds("MGDA") == [0] and found.failures == {("MGDA", 1): "the loss is nan"}
    with pytest.raises(NotTestableError, match="no finished run of FAMO"):
        found.seeds("MGDA", "FAMO")
    assert outcomes(record("MGDA", 0, 60, 1)).present == []


def test_a_change_against_zero_is_undefined():
    found = outcomes(record(BASELINE, 0, 0, 2), record("MGDA", 0, 60, 1))
    assert math.isnan(found.change("MGDA", COLUMNS[0]).mean)


def test_fd_counts_at_features_and_the_others_at_the_methods_level():
    found = outcomes(
        record(BASELINE, 0, 1, 1),
        record("MGDA", 0, 1, 1, parameter_gds=0.1, feature_gds=0.2, parameter_fd=0.3, feature_fd=0.4),
    )
    assert found.indicator("MGDA", "own", "gds").mean == 0.1
    assert found.indicator("MGDA", "own", "fd").mean == 0.4
    assert found.indicator("MGDA", "parameter", "fd").mean == 0.3


def test_the_ranking_leaves_the_baseline_out():
    rows = [record(BASELINE, 0, 99, 1, parameter_gds=-1)]
    rows += [record(n, 0, v, 1, parameter_gds=v / 10) for n, v in (("MGDA", 1), ("FAMO", 2), ("RLW", 3))]
    assert outcomes(*rows).similarity(COLUMNS[0], "own", "gds") == 1.0


def test_the_chance_level_is_that_of_shuffled_rankings():
    generator = np.random.default_rng(0)
    order = np.array([generator.permutation(21) for _ in range(4000)])
    first, second = np.triu_indices(21, 1)
    shares = (order[:, first] < order[:, second]).mean(1)
    assert chance_level(21) == pytest.approx(np.quantile(np.maximum(shares, 1 - shares), 0.95), abs=0.01)


def test_correlations_of_levels_per_pair_and_task():
    steps = np.arange(10.0)
    samples = [
        {
            "parameter_cosine/a/b": t,
            "feature_cosine/a/b": -2 * t,
            "parameter_norm/a": math.exp(t),
            "feature_norm/a": math.exp(3 * t),
            "parameter_norm/b": 1.0,
            "feature_norm/b": t,
            "parameter_gds": t,
        }
        for t in steps
    ]
    found = level_correlations({0: RunRecord("MGDA", 0, {}, samples)})
    assert found["cosine"] == pytest.approx([-1.0]) and found["norm"] == pytest.approx([1.0])  # constant: left out


def test_a_claim_is_judged_by_all_seeds_and_counted_by_each():
    claim = Claim("positive", "here", lambda values: Finding(sum(values) > 0, f"{sum(values)}"))
    judged = judge(claim, [3, -1, -1], [[3], [-1], [-1]])
    assert (judged.verdict, judged.numbers, judged.seeds_holding, judged.seeds) == (Verdict.SEEN, "1", 1, 3)
    untestable = judge(Claim("boxes", "there", reason="no boxes"), [], [])
    assert (untestable.verdict, untestable.numbers) == (Verdict.NOT_TESTABLE, "no boxes")


def made_up(level_gain):
    """Outcomes of all variants; at feature level the paper's two methods gain, or those given."""
    records = [record(BASELINE, 0, 50, 1)]
    for variant in variants()[1:]:
        method = variant.name.removeprefix("(rep) ")
        gain = 5 if variant.level == "feature" and method in level_gain else -5 if variant.level == "feature" else 0
        records.append(record(variant.name, 0, 50 + gain, 1 - gain / 100))
    return outcomes(*records)


@pytest.mark.parametrize(
    ("gaining", "verdict"),
    [
        (("MGDA", "Aligned-MTL"), Verdict.SEEN),
        (("MGDA",), Verdict.NOT_SEEN),
        (("MGDA", "Aligned-MTL", "RGW"), Verdict.NOT_SEEN),
    ],
)
def test_the_claim_on_levels_can_hold_and_fail(gaining, verdict):
    (claim,) = [claim for claim in claims() if "only MGDA and Aligned-MTL" in claim.text]
    found = made_up(gaining)
    assert judge(claim, found, found.single_seeds()).verdict == verdict


def test_the_claim_on_fd_can_hold_and_fail():
    (claim,) = [claim for claim in claims() if claim.text.startswith("FD ranks")]
    names = [variant.name for variant in variants()[1:]]
    shuffled = np.random.default_rng(0).permutation(len(names)).tolist()

    def verdict(good, bad):
        rows = [record(BASELINE, 0, 1, 1)]
        for i, name in enumerate(names):
            values = {f"{level}_{key}": float(shuffled[i]) for level in ("parameter", "feature") for key in bad}
            rows.append(record(name, 0, i + 1, 1, **values, **{f"feature_{good}": -i, f"parameter_{good}": -i}))
        found = outcomes(*rows)
        return judge(claim, found, []).verdict

    assert verdict("fd", ("gds", "gms")) == Verdict.SEEN
    assert verdict("gms", ("gds", "fd")) == Verdict.NOT_SEEN


def test_claims_on_methods_that_did_not_run_are_not_testable():
    found = outcomes(record(BASELINE, 0, 50, 1), record("(rep) RGW", 0, 50, 1))
    judged = [judge(claim, found, found.single_seeds()) for claim in claims()]
    testable = [entry.claim.text for entry in judged if entry.verdict != Verdict.NOT_TESTABLE]
    assert testable == ["At feature level, all methods but RGW end more disentangled than the baseline."]


def test_spreads_say_whether_seeds_agree():
    assert spread([0.1, 0.2]).agree and not spread([0.1, -0.2]).agree and not spread([0.1]).agree
    assert spread([0.01, 0.03]).percent() == "+2.0% ± 1.4" and spread([0.01]).percent() == "+1.0%"


# ---- report ----


def test_the_report_says_what_was_run_and_judges_every_claim(finished):
    path = report_folder(finished)
    text = path.read_text()
    assert path == finished / "report.html"
    for claim in claims():
        assert claim.reference in text
    for expected in ("8 of 8, 0 of them ended early", "fewer than the 50", "lower = more disentangled", "(rep) PCGrad"):
        assert expected.lower() in text.lower(), expected
    assert "http" not in text
    assert text.count("data:image/svg+xml;base64,") == 6


def test_an_unfinished_study_is_reported(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "part")
    for folder in (tmp_path / "part" / "runs").glob("*-seed1"):
        shutil.rmtree(folder)
    (tmp_path / "part" / "step_times.json").unlink()
    text = report_folder(tmp_path / "part").read_text()
    assert "Unfinished: 4 of 8 runs are done" in text and "Runtime" not in text


def test_folders_without_a_study_are_refused(tmp_path, finished):
    with pytest.raises(ValueError, match=r"holds no study: there is no study.json in it"):
        report_folder(tmp_path)
    content = json.loads((finished / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**content, "study": "dance"}))
    with pytest.raises(ValueError, match="is of the study 'dance', expected one of robust"):
        report_folder(tmp_path)
    (tmp_path / "study.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no run of the baseline and of a method"):
        report_folder(tmp_path)
    (tmp_path / "study.json").write_text("[]")
    with pytest.raises(ValueError, match="it is not of a study"):
        report_folder(tmp_path)


def test_the_command_line_runs_a_study_and_reports_again(tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--preset", "tiny", "--methods", "RLW", "--seeds", "1", "--workers", "1", "--out", str(out)]
    assert main(["study", "robust", *options]) == 0
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").exists() and "report written to" in capsys.readouterr().out
    assert main(["study", "robust", "--preset", "quick", "--data", "nyuv2"]) == 1
    assert "needs --preset full" in capsys.readouterr().err
