"""The IAL study: frozen networks' labels, broken heads, protocol, outcomes, claims that hold and fail, report."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtl_ext.cli import main
from mtl_ext.cli.study import choose_recipe
from mtl_ext.data import FolderSplit, MultiTaskData, scenes
from mtl_ext.data.extra_tasks import read_pseudo_labels, with_pseudo_labels
from mtl_ext.data.frozen_labels import FrozenNetworks, hard_segments, token_labels, write_pseudo_labels
from mtl_ext.data.scenes import CLASSES
from mtl_ext.methods import METHODS
from mtl_ext.studies import IALStudy, load_recipe, recipe_names, report_folder
from mtl_ext.studies.changes import Column
from mtl_ext.studies.claims import NotTestableError, Verdict, judge
from mtl_ext.studies.ial.claims import claims, criteria
from mtl_ext.studies.ial.outcomes import Evidence, Outcomes, read_steps, time_ratio
from mtl_ext.studies.ial.panels import read_panels
from mtl_ext.studies.ial.protocol import AUXILIARY, NORMAL, OURS, PSEUDO, Protocol, row_name
from mtl_ext.studies.ial.report import OTHER_NAMES
from mtl_ext.studies.ial.training import encoder_weight, presences
from mtl_ext.studies.published import published_claims, published_table, published_tables
from mtl_ext.studies.runs import WARNINGS, RunRecord, StudyRun
from mtl_ext.trainers import TrainConfig, Trainer, train_run

METHODS_USED = ["Uniform", "OL-AUX", "IAL"]
FULL = [name for name in recipe_names("ial") if name not in ("quick", "tiny")]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_EXT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny preset with one seed, of Uniform, OL-AUX and IAL; without domains."""
    out = tmp_path_factory.mktemp("study")
    recipe = tiny()
    IALStudy(recipe, METHODS_USED).run(out, 1)
    return out


def tiny():
    recipe = load_recipe("ial", "tiny")
    experiments = {
        name: {key: value for key, value in own.items() if key != "seeds"} for name, own in recipe.experiments.items()
    }
    return replace(recipe, seeds=1, experiments=experiments)


# ---- labels of frozen networks ----


def test_segments_below_one_half_have_no_label():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25], [0.2, 0.2, 0.6]]))
    assert hard_segments(logits.T[None, :, None, :]).tolist() == [[[0, 255, 2]]]


def test_token_labels_are_the_five_best_classes_and_their_probabilities():
    logits = torch.randn(2, 9, 3, 4, generator=torch.Generator().manual_seed(0))
    found = token_labels(logits)
    shares = np.exp(logits.double().numpy())
    shares /= shares.sum(1, keepdims=True)
    best = np.argsort(-shares, axis=1)[:, :5]
    np.testing.assert_array_equal(found[:, :5].numpy(), best)
    np.testing.assert_allclose(found[:, 5:].numpy(), np.take_along_axis(shares, best, 1), rtol=1e-5)


def stub_networks(segments=80, classes=1000):
    """Networks that see the image's first channel as logits of class 3."""

    def dense(count):
        def network(images):
            logits = torch.zeros(len(images), count, *images.shape[-2:])
            logits[:, 3] = 20 * images[:, 0]
            return logits

        return network

    cells = dense(classes)
    return FrozenNetworks(dense(segments), lambda x: cells(x).mean(dim=(2, 3)), lambda x: cells(x)[..., ::4, ::4])


def folder_data(count=2):
    images = torch.rand(count, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    split = FolderSplit("train", [str(i) for i in range(count)], lambda name: (images[int(name)], {}))
    return MultiTaskData((), split, split), images


def test_what_frozen_networks_see_is_written_as_the_loader_reads_it(tmp_path):
    data, images = folder_data()
    write_pseudo_labels(data, tmp_path, stub_networks(), lambda image: 1 - image)
    read = read_pseudo_labels(tmp_path / "pseudo" / "train", "1", images[1])
    seen = stub_networks().labels(1 - images[1:])
    assert torch.equal(read["pseudo_segmentation"], seen["pseudo_segmentation"][0])
    assert 255 in read["pseudo_segmentation"] and 3 in read["pseudo_segmentation"]
    torch.testing.assert_close(read["pseudo_class"], seen["pseudo_class"][0], atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(read["pseudo_tokens"], seen["pseudo_tokens"][0], atol=1e-3, rtol=1e-2)
    assert [task.name for task in with_pseudo_labels(data, tmp_path).tasks] == list(PSEUDO)


def test_networks_of_other_classes_and_data_in_memory_are_refused(tmp_path):
    data, _ = folder_data()
    with pytest.raises(ValueError, match=r"and \[10\] classes of images, expected segments 0 .. 79 and 1000 classes"):
        write_pseudo_labels(data, tmp_path, stub_networks(classes=10), lambda image: image)
    with pytest.raises(TypeError, match=r"data\.train is a SceneSplit, expected a FolderSplit"):
        write_pseudo_labels(scenes(2, 1, height=16, width=16), tmp_path, stub_networks(), lambda image: image)


def test_scenes_with_pseudo_labels_are_the_same_scenes_with_noisy_targets():
    plain, noisy = (scenes(16, 6, height=16, width=16, pseudo_labels=noise) for noise in (False, True))
    assert [task.name for task in noisy.tasks] == [*(task.name for task in plain.tasks), *PSEUDO]
    (first,), (second,) = plain.train.batches(16), noisy.train.batches(16)
    assert torch.equal(first.inputs, second.inputs) and torch.equal(first.targets["depth"], second.targets["depth"])
    segments = second.targets["pseudo_segmentation"]
    assert set(segments.unique().tolist()) <= {3, 4, 5, 6, 255}  # things, as in COCO
    torch.testing.assert_close(second.targets["pseudo_class"].sum(1), torch.ones(16))
    assert second.targets["pseudo_tokens"].shape == (16, 10, 1, 1)
    (tested,) = noisy.test.batches(6)
    assert not set(tested.targets) & set(PSEUDO)
    for task in noisy.tasks[-3:]:
        shape = (16, len(CLASSES), *(() if task.kind == "classes" else (16, 16)))
        assert torch.isfinite(task.loss(torch.randn(shape), second.targets[task.name]))


# ---- what the trainer has for the study ----

SMALL = {"train_size": 8, "test_size": 2, "height": 16, "width": 16}
CONFIG = TrainConfig(
    data="scenes",
    data_options=SMALL,
    model="small_dense",
    model_options={"width": 8, "hidden": 8},
    tasks=("depth", "normals"),
    epochs=1,
    batch_size=4,
    monitor_every=0,
)


@pytest.mark.parametrize("method", ["EW", "IAL", "AutoLambda"])
def test_a_frozen_head_stays_as_it_was_and_all_else_is_trained(method):
    config = replace(CONFIG, method=method, level="feature" if method == "IAL" else "parameter")
    trainer = Trainer(replace(config, frozen_heads=("depth",)))
    model = trainer.parts.model
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    trainer.fit()
    moved = {name for name, param in model.named_parameters() if not torch.equal(param, before[name])}
    assert moved == {name for name in before if not name.startswith("heads.depth.")}


def test_frozen_heads_are_heads(tmp_path):
    with pytest.raises(ValueError, match="frozen_heads holds 'edges', expected names of depth, normals"):
        Trainer(replace(CONFIG, frozen_heads=("edges",)))
    config = replace(CONFIG, frozen_heads=("depth",))
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


def test_logged_steps_hold_what_the_method_says_of_them(tmp_path):
    train_run(replace(CONFIG, method="IAL", level="feature", log_steps=2), folder=tmp_path)
    with (tmp_path / "steps.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {"loss/depth", "weight/normals", "sigma/depth", "norm/normals", "decoder_weight/depth"} <= set(row)
    steps = read_steps(tmp_path / "steps.csv")
    np.testing.assert_allclose(steps["decoder_weight/depth"], 1 / (2 * steps["sigma/depth"] ** 2), rtol=1e-6)
    ratio = steps["norm/depth"] / steps["norm/normals"]
    np.testing.assert_allclose(steps["weight/normals"], encoder_weight(steps["sigma/normals"]) * ratio, rtol=1e-6)


# ---- protocol ----


def test_every_paper_method_exists():
    assert all(method in METHODS for method in {**NORMAL, **AUXILIARY}.values())
    table = published_table("ial", "table_1_nyuv2").rows
    assert set(table) == {"Single task", *NORMAL, *AUXILIARY}


@pytest.mark.parametrize("name", recipe_names("ial"))
def test_every_recipe_describes_runs_with_folders_of_their_own(name):
    study = IALStudy(load_recipe("ial", name))
    runs = study.runs
    assert len({run.folder for run in runs}) == len(runs)
    for experiment, own in study.experiments(study._chosen({})).items():
        assert own.reference in own.rows
        primary = study.protocol.primary(experiment)
        for row, config in own.rows.items():
            options = config.method_options
            if "primary" in options:
                assert row.endswith(f"[{options['primary']}]") and options["primary"] in primary
            if config.method == "IAL":
                assert config.level == "feature"
    for names in study.protocol.recipe.experiments.values():
        for table in names.get("options", {}).get("paper", []):
            published_table("ial", table)


def test_every_dense_task_is_primary_in_turn_with_and_without_noise():
    study = IALStudy(load_recipe("ial", "quick"))
    found = study.experiments(study._chosen({}))
    assert sum(len(own.rows) for own in found.values()) == 29 + 23 + 35 + 18
    noisy = found["noisy"].rows
    assert noisy["IAL [normals]"].tasks == ("depth", "semantics", "normals", *PSEUDO[:2])
    assert noisy["IAL + tokens [normals]"].tasks[-3:] == PSEUDO
    assert (
        noisy["Uniform"].data_options["pseudo_labels"]
        and "pseudo_labels" not in found["plain"].rows["Uniform"].data_options
    )
    assert found["plain"].rows["Single task [depth]"].tasks == ("depth",)
    assert found["plain"].rows["PUW"].eval_every == 1 and found["plain"].rows["PUW"].holdout > 0


def test_ablations_are_options_of_the_same_method():
    study = IALStudy(load_recipe("ial", "quick"))
    chosen = study._chosen({}) | {"Grad.(GS) depth": 0.3, "GS depth": 0.4, "w. Grid Search semantics": 0.2}
    rows = study.experiments(chosen)["ablations"].rows
    assert rows["Grad.(GS) [depth]"].method_options == {"primary": "depth", "indicator": 0.3}
    assert rows["Uncer. [depth]"].method_options == {"primary": "depth", "match_norms": False}
    assert rows["GS [depth]"].method == "FixedWeights"
    assert rows["GS [depth]"].method_options == {"weights": [1.0, 0.4, 0.4]}
    assert rows["w. Grid Search [semantics]"].method_options["method"] == {
        "name": "FixedWeights",
        "weights": [0.2, 1.0, 0.2],
    }
    assert rows["Auto-λ (impartial) [semantics]"].method_options["indicator"] == "auto_lambda"
    assert rows["IAL (Fix) [normals]"].frozen_heads == rows["UW (Fix)"].frozen_heads == ("depth",)


def test_full_recipes_need_a_folder_and_keep_it_with_noisy_tasks(tmp_path):
    assert FULL == ["cifar100", "cityscapes_png", "nyud_mt", "nyuv2", "pascal_context"]
    for data in FULL:
        recipe = choose_recipe("ial", "full", data, tmp_path, None, None, None)
        study = IALStudy(recipe)
        configs = [run.config for run in study.runs]
        assert all(config.data_options["root"] == str(tmp_path) for config in configs)
        assert any(config.data_options.get("pseudo_labels") for config in configs) == ("noisy" in recipe.experiments)
    with pytest.raises(ValueError, match="the data nyud_mt need --root"):
        choose_recipe("ial", "full", "nyud_mt", None, None, None, None)


def test_single_tasks_on_pascal_train_for_60_epochs_of_100():
    rows = IALStudy(load_recipe("ial", "pascal_context")).experiments({"Auto-λ initial plain": 0.1})["plain"].rows
    assert rows["Single task [edges]"].epochs == 60 and rows["Uniform"].epochs == 100
    assert rows["PUW"].early_stop == 20


def test_unknown_methods_and_experiments_are_refused():
    recipe = load_recipe("ial", "tiny")
    with pytest.raises(ValueError, match="methods has 'SAAL', expected names out of Uniform"):
        Protocol(recipe, ["SAAL"])
    with pytest.raises(ValueError, match="has the experiment 'dance', expected plain, noisy"):
        Protocol(replace(recipe, experiments={"dance": {}}))
    broken = replace(recipe, experiments={"plain": {"options": {"normal": ["SAAL"]}}})
    with pytest.raises(ValueError, match="option normal has 'SAAL'"):
        IALStudy(broken).experiments({})
    assert "ablations" not in Protocol(recipe, ["Uniform"]).recipes


def test_grids_are_judged_by_the_primary_task_alone():
    study = IALStudy(load_recipe("ial", "tiny"))
    columns, choices = study._columns(), study.choices()
    by_task = {name: choice.metrics for name, choice in choices.items() if choice.metrics}
    assert by_task
    for name, tasks in by_task.items():
        assert {column.task for column in columns[name]} == set(tasks)


# ---- outcomes ----

TASKS = ("depth", "semantics", "normals")
COLUMNS = [
    Column("depth", "err", False),
    Column("depth", "rel", False),
    Column("semantics", "mIoU", True),
    Column("normals", "deg", False),
]


def record(row, depth=1.0, semantics=50.0, normals=20.0, seed=0, failure=None):
    measures = {"depth": {"err": depth, "rel": 0.0}, "semantics": {"mIoU": semantics}, "normals": {"deg": normals}}
    return RunRecord(row, seed, measures, [], failure)


def singles(seed=0):
    return [record(row_name("Single task", task), seed=seed) for task in TASKS]


def outcomes(*records, out=None, **others):
    return Outcomes(COLUMNS, TASKS, {"plain": records, **others}, out)


def auxiliary(name, gain, seed=0, others=0.0):
    """Runs whose primary task is better by a share than the single tasks, the others by another."""
    found = []
    for task in TASKS:
        gains = {t: gain if t == task else others for t in TASKS}
        values = (1 - gains["depth"], 50 * (1 + gains["semantics"]), 20 * (1 - gains["normals"]))
        found.append(record(row_name(name, task), *values, seed=seed))
    return found


def normal(name, gain, seed=0):
    return record(name, 1 - gain, 50 * (1 + gain), 20 * (1 - gain), seed=seed)


def test_in_the_auxiliary_setting_a_task_counts_where_it_is_primary():
    found = outcomes(*singles(), normal("Uniform", -0.1), *auxiliary("IAL", 0.2, others=-0.5))
    assert found.value("IAL", "semantics").values == pytest.approx((60.0,))
    assert found.value("IAL", "semantics", "depth").values == pytest.approx((25.0,))
    assert found.delta("IAL").mean == pytest.approx(0.2) and found.delta("Uniform").mean == pytest.approx(-0.1)
    assert found.delta("IAL", without=["depth"]).mean == pytest.approx(0.2)
    assert found.change("IAL", "depth", "Uniform").mean == pytest.approx(1 - 0.8 / 1.1)
    expected = np.mean([(1.1 - 1.5) / 1.1, (25 - 45) / 45, (22 - 30) / 22])
    assert found.auxiliary_change("IAL", "Uniform").mean == pytest.approx(expected)


def test_only_seeds_that_all_runs_have_count():
    failed = record("IAL [depth]", seed=1, failure="the loss is nan")
    runs = [*singles(), *singles(1), *auxiliary("IAL", 0.1), *auxiliary("IAL", 0.1, 1)[1:], failed]
    found = outcomes(*runs)
    assert found.seeds("IAL") == [0] and found.seeds("IAL", tasks=["normals"]) == [0, 1]
    assert found.failures == {("IAL [depth]", 1): "the loss is nan"}
    assert not found.has("GCS") and not found.of_seed(1).has("IAL")
    with pytest.raises(NotTestableError, match="no finished run of GCS with a common seed"):
        found.seeds("GCS")


def test_gains_by_noise_are_paired_by_seed():
    plain = outcomes(*singles(), *singles(1), *auxiliary("IAL", 0.1), *auxiliary("IAL", 0.3, 1))
    noisy = outcomes(*singles(), *singles(1), noisy=[*auxiliary("IAL", 0.2), *auxiliary("IAL", 0.3, 1)])
    assert noisy.gain("IAL", plain, "IAL").values == pytest.approx((0.1, 0.0))


def test_step_times_of_an_auxiliary_row_are_means_over_primary_tasks():
    times = {"Uniform": 1.0, "IAL [depth]": 1.1, "IAL [normals]": 1.3}
    assert time_ratio(times, "IAL", TASKS) == pytest.approx(1.2) and time_ratio(times, "GCS", TASKS) is None


def write_log(out, row, sigma, experiment="plain", **columns):
    folder = out / StudyRun(row, TrainConfig(), experiment).folder
    folder.mkdir(parents=True)
    rows = [{"step": i + 1, **{f"sigma/{t}": s[i] for t, s in sigma.items()}} for i in range(4)]
    rows = [{**entry, **{f"loss/{task}": 0.5 for task in sigma}, **columns} for entry in rows]
    with (folder / "steps.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_presence_says_when_a_task_left_the_encoder(tmp_path):
    found = outcomes(*singles(), *auxiliary("IAL", 0.1), out=tmp_path)
    for task in TASKS:
        write_log(tmp_path, row_name("IAL", task), {"depth": [0.9, 0.8, 0.7, 0.6], "normals": [0.9, 1.0, 1.2, 0.8]})
    entries = {(entry.task, entry.primary): entry for entry in presences(found)}
    left, stayed = entries["normals", "depth"], entries["depth", "normals"]
    assert (left.share, left.first) == (0.5, 0.25) and (stayed.share, stayed.first) == (1.0, 1.0)
    assert stayed.largest == pytest.approx(0.4) and left.mean == pytest.approx((0.1 + 0.2) / 4)
    assert ("depth", "depth") not in entries


# ---- claims ----


def claim(start, about=("NYUv2", "Cityscapes", "PASCAL-Context", "Multi-CIFAR100")):
    (found,) = [entry for entry in claims(about) if start in entry.text]
    return found


def evidence(plain=None, noisy=None, domains=None, times=None):
    return Evidence(plain, noisy, domains, times or {}, "semantics", "depth")


def verdict(start, *args, **kwargs):
    found = evidence(*args, **kwargs)
    return judge(claim(start), found, found.by_seed()).verdict


def test_every_claim_of_the_paper_has_a_criterion_and_none_is_left_over():
    said = published_claims("ial")
    assert len(claims(["NYUv2"])) == len(said) + 1 and len(criteria()) == len(said)
    about = {entry.about for entry in criteria()}
    assert about == {"", "NYUv2", "Cityscapes", "PASCAL-Context", "Multi-CIFAR100"}
    scenes_only = [entry for entry in claims(["NYUv2"]) if entry.reason == "It is about Cityscapes."]
    assert len(scenes_only) == 4
    nothing = evidence()
    assert {judge(entry, nothing, []).verdict for entry in claims(tuple(about))} == {Verdict.NOT_TESTABLE}


@pytest.mark.parametrize(("gain", "expected"), [(0.3, Verdict.SEEN), (0.1, Verdict.NOT_SEEN)])
def test_the_best_method_has_to_be_best_on_every_task(gain, expected):
    runs = [*singles(), normal("Uniform", 0.2), *auxiliary("IAL", gain)]
    assert verdict("our proposed method not only", outcomes(*runs)) is expected
    one_better = [*runs, record("DWA", depth=0.5, semantics=1.0)]
    assert verdict("our proposed method not only", outcomes(*one_better)) is Verdict.NOT_SEEN


@pytest.mark.parametrize(
    ("others", "gain", "expected"),
    [(-0.1, 0.2, Verdict.SEEN), (-0.5, 0.2, Verdict.NOT_SEEN), (-0.1, 0.0, Verdict.NOT_SEEN)],
)
def test_impartial_training_has_to_help_both_auxiliary_and_primary_tasks(others, gain, expected):
    runs = [*singles(), *auxiliary("OL-AUX", 0.1, others=-0.2), *auxiliary("IAL", gain, others=others)]
    assert verdict("Inadequately trained", outcomes(*runs)) is expected


@pytest.mark.parametrize(("after", "hurt", "helped"), [(0.1, "SEEN", "NOT_SEEN"), (0.08, "NOT_SEEN", "NOT_SEEN")])
def test_noisy_tasks_may_hurt_and_help(after, hurt, helped):
    plain = outcomes(*singles(), normal("Uniform", 0.1), *auxiliary("IAL", 0.1))
    runs = [normal("Uniform", 0.05), *auxiliary("IAL", after), *auxiliary("IAL + tokens", after)]
    noisy = outcomes(*singles(), noisy=runs)
    assert verdict("do not hurt under IAL", plain, noisy) is Verdict[hurt]
    assert verdict("the performance can be improved up", plain, noisy) is Verdict[helped]
    assert verdict("For multi-task learning baselines", plain, noisy) is Verdict.SEEN
    better = outcomes(*singles(), noisy=[normal("Uniform", 0.1), *auxiliary("IAL + tokens", 0.12)])
    assert verdict("the performance can be improved up", plain, better) is Verdict.SEEN
    assert verdict("For multi-task learning baselines", plain, better) is Verdict.NOT_SEEN


@pytest.mark.parametrize(
    ("fixed", "expected"), [([0.9, 1.1, 1.2, 1.3], Verdict.SEEN), ([0.9, 0.8, 0.7, 0.6], Verdict.NOT_SEEN)]
)
def test_a_broken_head_has_to_be_weighted_down(tmp_path, fixed, expected):
    runs = [*singles(), *auxiliary("IAL", 0.1)]
    ablations = auxiliary("IAL (Fix)", 0.1)
    write_log(tmp_path, "IAL [semantics]", {"depth": [0.9, 0.9, 0.8, 0.8]})
    write_log(tmp_path, "IAL (Fix) [semantics]", {"depth": fixed}, "ablations")
    found = outcomes(*runs, out=tmp_path, ablations=ablations)
    assert verdict("the uncertainty of depth", found) is expected


@pytest.mark.parametrize(("weight", "expected"), [(0.0, Verdict.SEEN), (0.1, Verdict.NOT_SEEN)])
def test_noisy_tasks_have_to_lose_their_weight(tmp_path, weight, expected):
    names = ("OL-AUX", "Auto-λ")
    plain = outcomes(*singles(), *(run for name in names for run in auxiliary(name, 0.1)))
    noisy = outcomes(*singles(), out=tmp_path, noisy=[run for name in names for run in auxiliary(name, 0.1)])
    for name in names:
        for task in TASKS:
            write_log(tmp_path, row_name(name, task), {}, "noisy", **{"weight/pseudo_class": weight})
    assert verdict("those methods under Auxiliary", plain, noisy) is expected


def test_indicators_have_to_be_clearly_worse_than_uncertainty():
    weaker = [run for name in ("Grad.(Fix)", "RTS", "EGN", "Cos.") for run in auxiliary(name, 0.1)]
    for gain, expected in ((0.12, Verdict.SEEN), (0.105, Verdict.NOT_SEEN)):
        found = outcomes(*singles(), *auxiliary("IAL", gain), ablations=weaker)
        assert verdict("Uncertainty improves", found) is expected


def test_runtime_claims_go_by_step_times():
    found = outcomes(*singles(), *auxiliary("IAL", 0.1))
    times = {"IAL [depth]": 1.1, "Auto-λ [depth]": 1.15, "MGDA": 1.3, "PCGrad": 1.3, "IMTL-G": 1.3}
    assert verdict("it is slightly faster", found, times=times) is Verdict.SEEN
    assert verdict("it is slightly faster", found, times={**times, "Auto-λ [depth]": 4.2}) is Verdict.NOT_SEEN
    assert verdict("it is slightly faster", found) is Verdict.NOT_TESTABLE


# ---- a study from end to end ----


def test_the_papers_rows_are_found_under_our_names():
    for name, renamed in OTHER_NAMES.items():
        assert set(renamed) <= set(published_tables("ial")[name].rows)


def test_a_study_runs_reports_and_goes_on(finished, tmp_path):
    study = IALStudy(tiny(), METHODS_USED)
    counts = []
    study.run(finished, 1, counts.append)
    assert sum(counts) == len(study.runs) and len(counts) == 2  # all found, for choices and experiments
    text = report_folder(finished).read_text()
    for part in (
        "Claims of the paper",
        "Table X.",
        "Fig. 13",
        "Fig. 14",
        "Fig. 12",
        "Weight above 0",
        "4.24",
        "Table VII",
    ):
        assert part in text
    assert "Single task" in text and "+ tokens" in text and "only relative changes stand beside" in text
    out = tmp_path / "part"
    shutil.copytree(finished, out)
    for experiment in ("plain", "noisy", "ablations"):
        shutil.rmtree(out / "runs" / experiment)
    text = report_folder(out).read_text()
    assert "Unfinished" in text and "Table VII" in text and "Fig. 14" not in text
    shutil.rmtree(out / "runs")
    with pytest.raises(ValueError, match="no run of Uniform and of single tasks"):
        report_folder(out)


def test_panels_show_the_fixed_images_of_every_primary_task(finished):
    panels = read_panels(finished)
    for experiment in ("plain", "noisy"):
        for task in TASKS:
            for column in ("image", "truth", "OL-AUX", OURS):
                assert panels[experiment, task, column].shape[:3] == (2, 16, 16)
    (batch,) = scenes(16, 6, height=16, width=16).test.batches(6)
    np.testing.assert_array_equal(panels["plain", "semantics", "truth"], batch.targets["semantics"][[1, 4]].numpy())
    depth = panels["noisy", "depth", "truth"]
    np.testing.assert_array_equal(depth, batch.targets["depth"][[1, 4], 0].numpy().astype(np.float16))
    assert panels["plain", "normals", OURS].shape[-1] == 3 and panels["worst", "depth", OURS].shape == (3, 16, 16)
    lengths = np.linalg.norm(panels["plain", "normals", OURS].astype(np.float32), axis=-1)
    np.testing.assert_allclose(lengths, 1.0, atol=0.01)


def test_what_runs_warn_of_is_in_their_folders(finished):
    texts = [path.read_text() for path in finished.glob(f"runs/**/{WARNINGS}")]
    assert texts and all("the encoder's weight was 0 in every step" in text for text in texts)


def test_the_command_line_knows_the_study(tmp_path, capsys):
    recipe = tiny()
    small = {**{key: value for key, value in vars(recipe).items() if key != "notes"}, "notes": list(recipe.notes)}
    small["experiments"] = {"domains": recipe.experiments["domains"]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(small))
    options = ["--recipe", str(tmp_path / "recipe.yaml"), "--workers", "1", "--out", str(tmp_path / "out")]
    assert main(["study", "ial", *options]) == 0
    assert "report written to" in capsys.readouterr().out
    assert "Table VII" in (tmp_path / "out" / "report.html").read_text()
