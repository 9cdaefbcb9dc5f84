"""What a configuration says and refuses: its file, schedules, validation, selection and early stopping."""

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from small_data import SIZE, TASKS, make_data, make_own_data, make_split

from mtl_ext.data import MultiTaskData, hold_out
from mtl_ext.metrics import delta_mtl
from mtl_ext.trainers import TrainConfig, Trainer, train_run
from mtl_ext.trainers.results import EpochRecord
from mtl_ext.trainers.schedules import make_schedule
from mtl_ext.trainers.selection import Selection

BASE = TrainConfig(model_options={"size": SIZE}, epochs=2, batch_size=32, lr=1e-2, monitor_every=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epochs": 0}, "epochs is 0, expected a number at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"warmup_steps": 0.5}, "warmup_steps is 0.5, expected a whole number of at least 0"),
        ({"lr": "fast"}, "lr is 'fast', expected a number"),
        ({"threads": 0}, "threads is 0"),
        ({"monitor_every": -1}, "monitor_every is -1"),
        ({"lr": 0.0}, "lr is 0.0, expected a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"holdout": 1.0}, "holdout is 1.0, expected a number at least 0 and below 1"),
        ({"level": "loss"}, "level is 'loss', expected one of 'parameter', 'feature'"),
        ({"schedule": "linear"}, "schedule is 'linear'"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"precision": "float16"}, "precision is 'float16' on cpu, expected a CUDA device: take 'bfloat16'"),
        ({"accumulate_by": "mean"}, "accumulate_by is 'mean'"),
        ({"accumulate": 2, "accumulate_by": "tasks"}, "accumulate_by is 'tasks'.*take a gradient method"),
        (
            {"accumulate": 2, "accumulate_by": "tasks", "method": "PCGrad", "level": "feature"},
            "accumulate_by is 'tasks'.*level parameter",
        ),
        ({"schedule": "poly", "schedule_options": {"gamma": 1}}, "schedule 'poly' has no option 'gamma'; it has power"),
        ({"schedule_options": {"floor": 2}}, "schedule_options.floor is 2"),
        ({"select": "best"}, "select is 'best', expected last, best_val_delta, best_val_TASK/METRIC or best_test"),
        ({"select": "best_val_delta"}, "the data set has no validation split: set holdout"),
        (
            {"select": "best_val_mean/acc", "holdout": 0.1},
            "select is 'best_val_mean/acc', expected .*best_val_brightest/acc %",
        ),
        ({"early_stop": 3}, "early_stop needs to know what is better: set select"),
        ({"select": "best_test", "baseline": "absent.json"}, "baseline absent.json: .*No such file"),
        ({"holdout": 0.001}, "holdout is 0.001 of 96 samples"),
        ({"method": "Best"}, "no method 'Best'; there are .*PCGrad"),
        ({"method": "DTP"}, "method 'DTP' goes by validation measures.*set holdout"),
        ({"method": "PCGrad", "method_options": {"c": 1}}, "method 'PCGrad' has no option 'c'; it has reduction"),
        ({"method": "UW", "method_options": {"num_tasks": 9}}, "no option 'num_tasks'"),
        ({"model": "resnet"}, "no model 'resnet'; there are .*small_conv"),
        ({"model_options": {"depth": 1}}, "model 'small_conv' has no option 'depth'"),
        ({"optimizer": "Optimizer"}, "no optimizer 'Optimizer'; there are .*Adam"),
        ({"optimizer_options": {"speed": 1}}, "optimizer 'Adam' has no option 'speed'"),
        ({"tasks": ("depth",)}, "tasks holds 'depth', expected different names of brightest, bright, mean"),
        ({"tasks": ("mean", "mean")}, "tasks holds 'mean', expected different names"),
    ],
)
def test_a_configuration_that_cannot_train_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        Trainer(replace(BASE, **change), make_data())


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="no data set 'imagenet'; there are multi_mnist"):
        Trainer(replace(BASE, data="imagenet"))


def test_a_configuration_survives_its_file(tmp_path):
    path = tmp_path / "run.yaml"
    config = replace(BASE, tasks=("mean", "bright"), method="CAGrad", method_options={"c": 0.4}, clip_norm=1.0)
    config.save(path)
    assert TrainConfig.load(path) == config
    path.write_text("method: CAGrad\nlr: 1e-3\nmethod_options: {c: 4e-1}\n")
    assert TrainConfig.load(path) == TrainConfig(method="CAGrad", lr=0.001, method_options={"c": 0.4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed: 9\n", "run.yaml: there is no field 'speed'; there are method,"),
        ("- UW\n", "run.yaml holds list, expected fields"),
        ("lr: [\n", "run.yaml is no YAML file"),
        ("epochs: 0\n", "run.yaml: epochs is 0"),
        ("epochs: many\n", "run.yaml: epochs is 'many', expected a whole number"),
        ("!!python/object/apply:os.getcwd []\n", "run.yaml is no YAML file"),
    ],
)
def test_a_file_that_describes_no_run_is_refused(tmp_path, text, message):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        TrainConfig.load(path)


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        ("cosine", {}, lambda t: 0.5 * (1 + math.cos(math.pi * t / 40))),
        ("cosine", {"floor": 0.1}, lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * t / 40))),
        ("poly", {}, lambda t: (1 - t / 40) ** 0.9),
        ("poly", {"power": 2.0}, lambda t: (1 - t / 40) ** 2),
        ("step", {"every": 2, "factor": 0.1}, lambda t: 0.1 ** (t // 20)),
        ("constant", {}, lambda t: 1.0),
    ],
)
@pytest.mark.parametrize("warmup", [0, 4])
def test_schedules_have_their_closed_forms(schedule, options, expected, warmup):
    config = replace(BASE, schedule=schedule, schedule_options=options, epochs=4, warmup_steps=warmup)
    factor = make_schedule(config, steps_per_epoch=10)
    for t in range(40):
        rise = (t + 1) / warmup if t < warmup else 1.0
        assert factor(t) == pytest.approx(expected(t) * rise, rel=1e-12)


def test_the_cosine_is_torchs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    factor = make_schedule(replace(BASE, epochs=4), steps_per_epoch=5)
    for step in range(20):
        assert factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_learning_rates_of_model_and_method_follow_the_schedule():
    config = replace(BASE, method="UW", method_lr=0.5, schedule="step", schedule_options={"every": 1, "factor": 0.1})
    trainer = Trainer(config, make_data())
    records = trainer.fit().epochs
    assert [record.lr for record in records] == pytest.approx([1e-2, 1e-3])
    assert trainer.parts.optimizer.param_groups[1]["lr"] == pytest.approx(0.05)


def test_held_out_samples_are_a_random_share_that_the_seed_decides():
    split = make_split(50, 0)
    (rest, held), (_, again), (_, other) = (hold_out(split, 0.3, seed) for seed in (0, 0, 1))
    assert (len(rest), len(held)) == (35, 15)
    assert torch.equal(held.inputs, again.inputs)
    assert not torch.equal(held.inputs, other.inputs)
    both = torch.cat([rest.inputs, held.inputs]).flatten(1)[:, 0].sort().values
    assert torch.equal(both, split.inputs.flatten(1)[:, 0].sort().values)
    assert torch.equal(held.targets["mean"], 10 * (held.inputs.mean(dim=(1, 2, 3))[:, None] - 0.6))
    result = train_run(replace(BASE, holdout=0.25, epochs=1), make_data())
    assert result.samples == {"train": 72, "val": 24, "test": 40}
    assert list(result.epochs[0].val) == [task.name for task in TASKS]


def test_samples_are_held_out_only_where_that_makes_sense():
    data = make_data()
    with pytest.raises(ValueError, match="but the data set has a validation split: leave it at 0"):
        Trainer(replace(BASE, holdout=0.1), MultiTaskData(TASKS, data.train, data.test, data.test))
    with pytest.raises(ValueError, match=r"OwnSplit cannot hold samples out: it has no divide"):
        Trainer(replace(BASE, holdout=0.1), make_own_data())


def record(epoch, accuracy, error, split="val"):
    measures = {"brightest": {"acc %": accuracy}, "mean": {"abs err": error}}
    return EpochRecord(epoch, {}, {}, 0.1, measures if split == "test" else {}, measures if split == "val" else {})


@pytest.mark.parametrize(
    ("select", "split", "chosen"),
    [
        ("last", "val", 4),
        ("best_val_brightest/acc %", "val", 2),
        ("best_val_mean/abs err", "val", 3),
        ("best_val_delta", "val", 3),  # +10 % and -60 % of the error against +20 % and -20 %
        ("best_test", "test", 3),
    ],
)
def test_the_best_epoch_is_selected(select, split, chosen):
    tasks = [TASKS[0], TASKS[2]]
    selection = Selection(replace(BASE, select=select), tasks)
    model = torch.nn.Linear(1, 1)
    for epoch, (accuracy, error) in enumerate([(50, 1.0), (60, 0.8), (55, 0.4), (float("nan"), float("nan"))], 1):
        torch.nn.init.constant_(model.weight, epoch)
        selection.update(record(epoch, accuracy, error, split), model)
    assert selection.epoch == chosen
    assert selection.on_test == (split == "test")
    assert select == "last" or selection.model["weight"].item() == chosen


def test_delta_refers_to_baselines_of_a_file_or_the_configuration_or_to_the_first_evaluation(tmp_path):
    tasks, model = [TASKS[0], TASKS[2]], torch.nn.Linear(1, 1)
    path = tmp_path / "single.json"
    baseline = {"brightest": {"acc %": 80.0}, "mean": {"abs err": 0.5}, "other": {"acc %": 1.0}}
    path.write_text(json.dumps(baseline))
    config = replace(BASE, select="best_val_delta", baseline=str(path))
    selection = Selection(config, tasks)
    selection.update(record(1, 60.0, 0.6), model)
    baseline.pop("other")
    assert selection.baseline == baseline
    assert selection.value == pytest.approx(delta_mtl(record(1, 60.0, 0.6).val, baseline, {"abs err"}))
    assert Selection(replace(config, baseline=baseline), tasks).baseline == baseline
    with pytest.raises(ValueError, match=r"^baseline: 'mean' is missing; expected task"):
        Selection(replace(config, baseline={"brightest": {"acc %": 80.0}}), tasks)
    first = Selection(replace(config, baseline=None), tasks)
    first.update(record(1, 60.0, 0.6), model)
    assert (first.baseline, first.value) == (record(1, 60.0, 0.6).val, 0.0)
    for content, text in [
        ({"brightest": {"acc %": 80.0}}, "'mean' is missing"),
        ({"brightest": {"acc %": 80.0}, "mean": {"abs err": 0.0}}, "baseline's 'abs err' is 0"),
        ([1], "expected task -> metric -> value"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=text):
            Selection(config, tasks)


def test_training_ends_early_and_leaves_the_best_network(tmp_path, monkeypatch):
    config = replace(BASE, epochs=9, select="best_val_mean/abs err", holdout=0.25, early_stop=2, eval_every=2, lr=0.05)
    values = iter([0.5, 0.3, 0.4, 0.35, 0.1])
    update = Selection.update
    weights = []

    def scripted(self, record, model):
        record.val["mean"]["abs err"] = next(values)
        weights.append(next(model.parameters()).detach().clone())
        update(self, record, model)

    monkeypatch.setattr(Selection, "update", scripted)
    trainer = Trainer(config, make_data())
    result = trainer.fit()
    assert (len(result.epochs), result.selected_epoch, result.stopped_early) == (8, 4, True)
    assert [bool(record.measures) for record in result.epochs] == [False, True] * 4
    assert result.measures == result.epochs[3].measures
    assert torch.equal(next(trainer.parts.model.parameters()), weights[1])


def test_a_run_writes_tables_and_the_selected_network(tmp_path):
    config = replace(BASE, epochs=3, eval_every=2, select="best_test", log_steps=2, baseline=None)
    result = train_run(config, make_data(), tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["selected_on_test"], content["config"]["select"]) == (True, "best_test")
    assert content["baseline"] == result.epochs[1].measures
    with (tmp_path / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mean/abs err"] != "" for row in rows] == [False, True, True]
    with (tmp_path / "steps.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["2", "4", "6", "8"]
    model = Trainer(config, make_data()).parts.model
    model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert TrainConfig.load(tmp_path / "config.yaml") == config


def test_a_folder_is_not_written_over_unasked(tmp_path):
    config = replace(BASE, epochs=1)
    train_run(config, make_data(), tmp_path)
    with pytest.raises(FileExistsError, match="holds results: choose another folder"):
        train_run(config, make_data(), tmp_path)
    train_run(replace(config, seed=1), make_data(), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "results.json").read_text())["config"]["seed"] == 1
