"""What all studies share: recipes of several experiments, choices on held-out data, relative changes."""

import math
from dataclasses import replace

import pytest

from mtl_ext.report import Report
from mtl_ext.studies.changes import Column, mean_change, relative_change
from mtl_ext.studies.choice import Choice, decide
from mtl_ext.studies.recipe import make_recipe
from mtl_ext.studies.runs import RunRecord, StudyRun, with_seeds
from mtl_ext.studies.study import Experiment, Study, read_description
from mtl_ext.trainers import TrainConfig

SIZES = {"train_size": 24, "test_size": 12}
RECIPE = {
    "name": "two",
    "notes": ["none"],
    "seeds": 2,
    "train": {"data": "multi_mnist", "data_options": SIZES, "epochs": 1, "batch_size": 12, "monitor_every": 0},
    "method_options": {"CAGrad": {"c": 0.3}},
    "options": {"rates": [0.01, 0.001]},
    "timing_rounds": 0,
    "experiments": {
        "digits": {"timing_rounds": 1, "train": {"lr": 0.1}},
        "other digits": {
            "options": {"metrics": ["right/acc %"]},
            "seeds": 1,
            "train": {"data_options": {**SIZES, "seed": 1}},
        },
    },
}
COLUMNS = [Column("a", "acc", True), Column("b", "err", False)]


class TwoExperiments(Study):
    """Equal weighting on two data sets, with a learning rate that held-out digits choose."""

    name = "two"

    def choices(self):
        configs = {f"lr {lr}": replace(self.recipe.config("EW"), lr=lr, holdout=0.5) for lr in (0.01, 0.001)}
        return {"lr": Choice(configs, {"lr 0.01": 0.01, "lr 0.001": 0.001}, 1)}

    def experiments(self, chosen):
        found = {}
        for name in self.recipe.experiments:
            recipe = self.recipe.experiment(name)
            rows = {"EW": recipe.config("EW"), "chosen": replace(recipe.config("EW"), lr=chosen["lr"])}
            metrics = recipe.options.get("metrics", ())
            found[name] = Experiment(rows, recipe.seeds, "EW", recipe.timing_rounds, metrics)
        return found

    def analyse(self, out, runs, workers):
        (out / "analysed").write_text(str(len(runs)))

    def report(self, material):
        self.material = material
        return Report("two", [f"{material.done} of {material.planned}"])


def test_an_experiment_has_the_recipes_fields_but_for_its_own_entry_by_entry():
    recipe = make_recipe(RECIPE)
    first, second = (recipe.experiment(name) for name in recipe.experiments)
    assert first.train == {**RECIPE["train"], "lr": 0.1} and first.seeds == 2 and first.timing_rounds == 1
    assert second.seeds == 1 and second.train["data_options"]["seed"] == 1 and second.timing_rounds == 0
    assert second.config("CAGrad", epochs=7).epochs == 7
    assert second.config("CAGrad").method_options == {"c": 0.3}
    assert second.options == {"rates": [0.01, 0.001], "metrics": ["right/acc %"]}


def test_wrong_fields_of_an_experiment_are_refused():
    with pytest.raises(ValueError, match="experiment 'x' has no field 'speed'; it has seeds, train"):
        make_recipe({**RECIPE, "experiments": {"x": {"speed": 1}}})
    with pytest.raises(ValueError, match=r"recipe 'x': train has \['method'\]"):
        make_recipe({**RECIPE, "experiments": {"x": {"train": {"method": "EW"}}}})


def test_folders_tell_experiments_apart():
    config = TrainConfig(seed=3)
    assert StudyRun("Vanilla + DGR", config, "other digits").folder == "runs/other-digits/Vanilla-DGR-seed3"
    assert StudyRun("(rep) MGDA", config).folder == "runs/rep-MGDA-seed3"


def record(row, seed, a, b=1.0, failure=None):
    measures = {"a": {"acc": a}, "b": {"err": b}}
    return RunRecord(row, seed, measures, [], failure, measures)


def test_changes_are_positive_where_better_and_undefined_against_zero():
    new, old = record("x", 0, 60.0, 3.0).measures, record("y", 0, 50.0, 2.0).measures
    assert [relative_change(new, old, column) for column in COLUMNS] == pytest.approx([0.2, -0.5])
    assert mean_change(new, old, COLUMNS) == pytest.approx(-0.15)
    assert math.isnan(mean_change(new, record("y", 0, 0.0).measures, COLUMNS))


def choice(seeds=2):
    config = TrainConfig()
    return Choice({"off": config, "weak": config, "strong": config}, {"weak": 1, "strong": 2}, seeds)


def test_the_best_candidate_on_held_out_data_is_chosen_even_if_doing_without_is_better():
    records = [record("off", s, 50) for s in (0, 1)]
    records += [record("weak", 0, 40), record("weak", 1, 44), record("strong", 0, 50), record("strong", 1, 30)]
    decision = decide(choice(), COLUMNS, records)
    assert (decision.row, decision.value) == ("weak", 1)
    assert decision.scores["weak"].values == pytest.approx((-0.1, -0.06)) and decision.scores["off"].mean == 0


def test_failed_candidates_are_not_chosen_and_open_choices_not_decided():
    records = [record("off", 0, 50), record("weak", 0, 40), record("strong", 0, 90, failure="the loss is nan")]
    assert decide(choice(1), COLUMNS, records).value == 1
    assert decide(choice(2), COLUMNS, records) is None
    all_failed = [replace(entry, failure="the loss is nan") for entry in records]
    assert decide(choice(1), COLUMNS, all_failed).value == 1


def test_choices_are_made_before_the_experiments_and_all_of_it_goes_on_where_it_was(tmp_path):
    study, counts = TwoExperiments(make_recipe(RECIPE)), []
    assert len(study.runs) == 2 + 4 + 2
    study.run(tmp_path, 1, counts.append)
    assert sum(counts) == 8 and (tmp_path / "analysed").read_text() == "6"
    study.write_report(tmp_path, read_description(tmp_path))
    material = study.material
    decision = material.decisions["lr"]
    assert decision.value == max((0.01, 0.001), key=lambda lr: decision.scores[f"lr {lr}"].mean)
    assert (
        [len(results.records) for results in material.results.values()]
        == [4, 2]
        == [results.planned for results in material.results.values()]
    )
    assert set(material.results["digits"].step_times) == {"EW", "chosen"}
    assert material.results["other digits"].step_times == {}
    names = [[column.name for column in results.columns] for results in material.results.values()]
    assert len(names[0]) == 4 and names[1] == ["right acc %"]
    counts.clear()
    study.run(tmp_path, 1, counts.append)
    assert counts == [2, 6]


def test_unknown_metrics_are_refused(tmp_path):
    recipe = make_recipe({**RECIPE, "experiments": {"x": {"options": {"metrics": ["right/speed"]}}}})
    with pytest.raises(ValueError, match="metrics has 'right/speed', expected names out of left/acc %"):
        TwoExperiments(recipe).run(tmp_path, 1)


def test_runs_have_the_seeds_outermost():
    runs = with_seeds({"a": TrainConfig(), "b": TrainConfig()}, 2, "x")
    assert [(run.row, run.config.seed, run.experiment) for run in runs] == [
        ("a", 0, "x"),
        ("b", 0, "x"),
        ("a", 1, "x"),
        ("b", 1, "x"),
    ]
