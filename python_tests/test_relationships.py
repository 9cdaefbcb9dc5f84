"""Task relationships: the five measures, what is cached, how they agree, and their figure."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_data import TASKS, make_data, make_split
from test_self_auxiliary import CONFIG as HALF_SHARED
from torch import nn

from mtl_ext.data import MemorySplit, MultiTaskData
from mtl_ext.metrics import task_changes
from mtl_ext.models import MODELS, small_conv
from mtl_ext.models.transfer import Frozen
from mtl_ext.relationships import (
    LookAhead,
    Measure,
    agreement,
    enumerate_pairs,
    feature_similarity,
    gradient_angles,
    mean_relationships,
    observe_run,
    relationships_figure,
    saal_coefficients,
    self_auxiliary_pairs,
)
from mtl_ext.relationships import cached_runs as runs_module
from mtl_ext.trainers import TrainConfig, Trainer, lower_is_better, train_run

DATA = MultiTaskData(TASKS, make_split(64, 0), make_split(24, 1), make_split(32, 2))
CONFIG = TrainConfig(
    model="small_conv",
    model_options={"size": 8, "width": 4},
    epochs=1,
    batch_size=32,
    optimizer="SGD",
    lr=0.05,
    monitor_every=0,
)
PAIRS = ("bright->brightest", "mean->brightest", "brightest->bright", "mean->bright", "brightest->mean", "bright->mean")


def trained_configs(monkeypatch):
    """The configurations that are trained from now on."""
    configs, real = [], train_run

    def counting(config, *args, **kwargs):
        configs.append(config)
        return real(config, *args, **kwargs)

    monkeypatch.setattr(runs_module, "train_run", counting)
    return configs


def test_enumeration_compares_every_pair_with_single_tasks_and_runs_each_once(tmp_path, monkeypatch):
    configs, seen = trained_configs(monkeypatch), []
    options = {"seeds": (0, 1), "folder": tmp_path, "on_run": lambda *counts: seen.append(counts)}
    changes = enumerate_pairs(CONFIG, DATA, **options)
    assert tuple(changes) == PAIRS
    assert len(configs) == 2 * (3 + 3)
    assert seen[0] == (0, 12)
    assert seen[-1] == (12, 12)
    expected = []
    for seed in (0, 1):
        val = {
            tasks: train_run(replace(CONFIG, tasks=tasks, seed=seed), DATA).selected.val
            for tasks in (("mean",), ("bright", "mean"))
        }
        both = {"mean": val["bright", "mean"]["mean"]}
        expected.append(task_changes(both, val["mean",], lower_is_better(list(TASKS)))["mean"])
    assert changes["bright->mean"] == pytest.approx(np.mean(expected))
    configs.clear()
    assert enumerate_pairs(CONFIG, DATA, **options) == changes
    assert configs == []
    enumerate_pairs(replace(CONFIG, lr=0.06), DATA, seeds=(0,), folder=tmp_path)
    assert len(configs) == 6


def test_an_interrupted_enumeration_goes_on(tmp_path, monkeypatch):
    calls, real = [], train_run

    def breaking(config, *args, **kwargs):
        calls.append(config.tasks)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(config, *args, **kwargs)

    monkeypatch.setattr(runs_module, "train_run", breaking)
    with pytest.raises(KeyboardInterrupt):
        enumerate_pairs(CONFIG, DATA, seeds=(0,), folder=tmp_path)
    enumerate_pairs(CONFIG, DATA, seeds=(0,), folder=tmp_path)
    assert len(calls) == 7
    assert calls[2] == calls[3]


def test_results_that_were_spoiled_are_named(tmp_path):
    runs = runs_module.CachedRuns(tmp_path, DATA)
    config = replace(CONFIG, tasks=("mean",))
    runs.validation(config)
    path = runs.run_folder(config) / "results.json"
    for text in ("{", '{"epochs": []}', "[]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"results.json is no result of a run .*delete the folder"):
            runs.validation(config)


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [
        ({"tasks": ("mean",)}, DATA, r"tasks are \['mean'\], .*expected two or more"),
        ({}, make_data(), "the data set has no validation split: set holdout"),
        ({"model": "half_shared", "model_options": HALF_SHARED.model_options}, DATA, "take shared_blocks 5"),
    ],
)
def test_what_has_no_relationships_is_refused(changes, data, message, tmp_path):
    for measure in (enumerate_pairs, feature_similarity, observe_run):
        with pytest.raises(ValueError, match=message):
            measure(replace(CONFIG, **changes), data, folder=tmp_path)


def test_self_auxiliaries_are_the_pairs_that_help():
    assert self_auxiliary_pairs({"a->b": 0.01, "b->a": 0.0, "c->a": -0.2, "a->c": float("nan")}) == ("a->b",)
    config = replace(HALF_SHARED, self_auxiliaries=self_auxiliary_pairs({"brightest->mean": 0.1}))
    assert Trainer(config, DATA).parts.model.tasks == ("brightest", "mean", "brightest->mean")


def naive_gains(trainer, batches):
    """1 - L_t(p - lr dL_s) / L_t(p) on copies of the network, by (split, source, target)."""
    model, lr = trainer.parts.model, trainer.parts.optimizer.param_groups[0]["lr"]

    def losses(of, batch):
        outputs = of(batch.inputs)
        return [task.loss(outputs[task.name], batch.targets[task.name]) for task in TASKS]

    gains = {}
    for s, source in enumerate(TASKS):
        loss = losses(model, batches["train"])[s]
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for param, grad in zip(moved.parameters(), grads, strict=True):
                if grad is not None:
                    param -= lr * grad
        for split, batch in batches.items():
            for target, after, before in zip(TASKS, losses(moved, batch), losses(model, batch), strict=True):
                gains[split, source.name, target.name] = 1 - float(after.detach() / before.detach())
    return gains


def test_look_ahead_is_the_relative_fall_of_the_targets_loss_after_a_step_on_the_source():
    trainer = Trainer(replace(CONFIG, batch_size=64), DATA)
    look_ahead = LookAhead(trainer)
    batches = {
        split: next(samples.batches(64, torch.Generator().manual_seed(0)))
        for split, samples in (("train", DATA.train), ("val", DATA.val))
    }
    expected = naive_gains(trainer, batches)
    look_ahead._gains = {split: [gains] for split, gains in look_ahead._measure().items()}
    for split in ("train", "val"):
        found = look_ahead.relationships(split)
        assert tuple(found) == PAIRS
        for pair, value in found.items():
            source, _, target = pair.partition("->")
            assert value == pytest.approx(expected[split, source, target], abs=1e-5), pair


def test_observing_leaves_training_as_it_is_and_is_kept(tmp_path, monkeypatch):
    config = replace(CONFIG, model="resnet_split", model_options={"width": 2, "in_channels": 1, "rates": [1]}, epochs=2)
    data = MultiTaskData(*(DATA.tasks, *(upscaled(split) for split in (DATA.train, DATA.test, DATA.val))))
    plain = train_run(replace(config, monitor_every=1), data)
    states = []
    watched = Trainer(replace(config, monitor_every=1), data)
    result = watched.fit(on_step=LookAhead(watched, every=1))
    assert [record.row() for record in result.epochs] == [record.row() for record in plain.epochs]
    found = observe_run(config, data, every=1, folder=tmp_path)
    assert all(value == value for value in found.look_ahead_val.values())
    cosines = [record["parameter_cosine/brightest/mean"] for record in result.similarity]
    angle = np.median(np.degrees(np.arccos(cosines)))
    assert found.gradient_angle["brightest->mean"] == pytest.approx(angle)
    assert found.gradient_angle["mean->brightest"] == pytest.approx(angle)
    monkeypatch.setattr("mtl_ext.relationships.observed.Trainer", states.append)
    assert observe_run(config, data, every=1, folder=tmp_path) == found
    assert states == []
    (path,) = tmp_path.glob("observed-*.json")
    path.write_text(json.dumps({"other": {}}))
    with pytest.raises(ValueError, match="is no result of a run"):
        observe_run(config, data, every=1, folder=tmp_path)


def upscaled(split):
    """The same images four times as large, for a network with a stride of 32."""
    inputs = nn.functional.interpolate(split.inputs, scale_factor=4.0)
    pixels = nn.functional.interpolate(split.targets["bright"][:, None].float(), scale_factor=4.0)[:, 0].long()
    return MemorySplit(inputs, {**split.targets, "bright": pixels})


def test_look_ahead_and_angles_name_what_they_miss():
    with pytest.raises(ValueError, match="needs a validation split"):
        LookAhead(Trainer(CONFIG, make_data()))
    with pytest.raises(ValueError, match="every is 0"):
        LookAhead(Trainer(CONFIG, DATA), every=0)
    assert all(value != value for value in LookAhead(Trainer(CONFIG, DATA)).relationships("val").values())
    with pytest.raises(ValueError, match="similarity holds no records: set monitor_every"):
        gradient_angles([], ["a", "b"])
    halves = [{"parameter_cosine/a/b": value} for value in (1.0000001, 0.5, -0.2)]
    assert gradient_angles(halves, ["a", "b"]) == pytest.approx({"b->a": 60.0, "a->b": 60.0})


def test_feature_similarity_trains_a_head_on_the_frozen_encoder_of_the_source(tmp_path, monkeypatch):
    configs, seen = trained_configs(monkeypatch), []
    data = MultiTaskData(TASKS[::2], DATA.train, DATA.test, DATA.val)
    options = {"seeds": (0,), "folder": tmp_path}
    found = feature_similarity(CONFIG, data, **options, on_run=lambda *counts: seen.append(counts))
    assert list(found) == ["mean->brightest", "brightest->mean"]
    assert seen == [(k, 4) for k in range(5)]
    (config,) = [config for config in configs if config.model == "transfer" and config.tasks == ("mean",)]
    trainer = Trainer(config, data)
    before = {name: value.clone() for name, value in trainer.parts.model.encoder.state_dict().items()}
    source = torch.load(config.model_options["weights"], weights_only=True)
    for name, value in before.items():
        assert torch.equal(value, source["encoder." + name.removeprefix("module.")])
    result = trainer.fit()
    assert all(torch.equal(value, before[name]) for name, value in trainer.parts.model.encoder.state_dict().items())
    runs = runs_module.CachedRuns(tmp_path, data)
    single = runs.validation(replace(CONFIG, tasks=("mean",)))
    assert found["brightest->mean"] == pytest.approx(
        task_changes(result.selected.val, single, lower_is_better(list(TASKS)))["mean"]
    )
    configs.clear()
    enumerate_pairs(CONFIG, data, **options)  # has its single-task runs from here
    assert [config.tasks for config in configs] == [("brightest", "mean")]


def test_frozen_parts_keep_their_statistics():
    frozen = Frozen(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5)))
    network = nn.Sequential(frozen, nn.Dropout(0.5)).train()
    frozen(torch.randn(4, 1, 3, 3))
    assert network[1].training
    assert not any(module.training for module in frozen.modules())
    assert frozen.module[1].num_batches_tracked == 0
    assert not any(param.requires_grad for param in network.parameters())


def test_what_cannot_transfer_is_named(tmp_path):
    make = MODELS["transfer"]
    with pytest.raises(ValueError, match="there is no model 'resnet'"):
        make(TASKS, model="resnet")
    options = {"width": 2, "rates": (1,), "in_channels": 1}
    with pytest.raises(ValueError, match="model 'half_shared' has parts of each task's own before its heads"):
        make(TASKS, model="half_shared", model_options=options)
    assert make(TASKS, model="half_shared", model_options={**options, "shared_blocks": 5}).tasks == make(TASKS).tasks
    with pytest.raises(ValueError, match=r"features are of shape \[2, 8\], expected maps"):
        make(TASKS[::2], model="mlp", model_options={"in_features": 4, "width": 8})(torch.randn(2, 4))
    torch.save(small_conv(TASKS, size=8, width=8).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match=r"does not fit the network: it has in another shape encoder.1.weight \[8, 16"):
        make(TASKS, model="small_conv", model_options={"size": 8, "width": 4}, weights=tmp_path / "wide.pt")


def test_coefficients_are_the_self_auxiliaries_weights_at_the_end():
    config = replace(HALF_SHARED, method="SAALw", method_options={"lr": 1e-2}, epochs=2)
    result = train_run(config, DATA)
    found = saal_coefficients(result)
    assert list(found) == ["mean->brightest", "brightest->mean"]
    assert found["mean->brightest"] == result.epochs[-1].weights["mean->brightest"]
    with pytest.raises(ValueError, match="trained no self-auxiliary tasks"):
        saal_coefficients(train_run(CONFIG, DATA))


TASK_NAMES = ("a", "b", "c", "d")


def drawn(seed):
    generator = np.random.default_rng(seed)
    return {f"{s}->{t}": float(generator.integers(-3, 4)) for t in TASK_NAMES for s in TASK_NAMES if s != t}


def test_agreement_is_spearmans_correlation_per_target():
    stats = pytest.importorskip("scipy.stats")
    compared = 0
    for seed in range(20):
        first, second = drawn(2 * seed), drawn(2 * seed + 1)
        found = agreement(Measure("ours", first), Measure("enumeration", second))
        for target in TASK_NAMES:
            rows = [[values[f"{s}->{target}"] for s in TASK_NAMES if s != target] for values in (first, second)]
            if any(len(set(row)) == 1 for row in rows):
                assert target in found.left_out
            else:
                compared += 1
                assert found.targets[target] == pytest.approx(stats.spearmanr(*rows).statistic)
        assert len(found.targets) + len(found.left_out) == 4
        if found.targets:
            assert found.mean == pytest.approx(np.mean(list(found.targets.values())))
    assert compared > 50


def test_with_two_sources_a_target_agrees_or_disagrees():
    """The published -0.33 of three tasks: one target in order, two in reverse."""
    actual = Measure("enumeration", {"b->a": 1, "c->a": 2, "a->b": 1, "c->b": 2, "a->c": 1, "b->c": 2})
    angles = Measure("angle", {"b->a": 80, "c->a": 70, "a->b": 80, "c->b": 85, "a->c": 70, "b->c": 85}, True, 90)
    found = agreement(angles, actual)
    assert found.targets == pytest.approx({"a": 1, "b": -1, "c": -1})
    assert found.mean == pytest.approx(-1 / 3)
    constant = agreement(Measure("ours", dict.fromkeys(actual.values, 0.5)), actual)
    assert constant.left_out == ("a", "b", "c")
    assert constant.mean != constant.mean


def test_measures_that_cannot_be_compared_are_named():
    actual = Measure("enumeration", {"b->a": 1.0, "a->b": 2.0})
    with pytest.raises(ValueError, match="angle and enumeration are of different pairs: only one of them has a->b"):
        agreement(Measure("angle", {"b->a": 1.0}), actual)
    with pytest.raises(ValueError, match="angle has NaN for a->b"):
        agreement(Measure("angle", {"b->a": 1.0, "a->b": float("nan")}), actual)
    with pytest.raises(ValueError, match="expected relationships of the same pairs"):
        mean_relationships([{"a->b": 1.0}, {"b->a": 1.0}])
    assert mean_relationships([{"a->b": 1.0}, {"a->b": 2.0}]) == {"a->b": 1.5}


def test_the_figure_has_every_value_and_every_agreement(tmp_path):
    pytest.importorskip("matplotlib")
    values = {"b->a": 0.12, "c->a": -0.03, "a->b": 0.0, "c->b": 0.01, "a->c": -0.2, "b->c": 0.05}
    measures = [
        Measure("Enumeration", values),
        Measure("Gradient angle", {pair: 90 - 100 * v for pair, v in values.items()}, True, 90.0, "{:.0f}°"),
    ]
    figure = relationships_figure(measures, {"Gradient angle": agreement(measures[1], measures[0])})
    left, right = figure.axes
    assert [text.get_text() for text in left.texts] == ["+0.0%", "-20.0%", "+12.0%", "+5.0%", "-3.0%", "+1.0%"]
    assert "rank correlation +1.00, mean of 3 targets" in right.get_title(loc="left")
    assert left.images[0].get_array()[1, 0] == pytest.approx(0.12)  # source b, target a
    assert right.images[0].get_array()[1, 0] == pytest.approx(12.0)  # on the helping side as well
    figure.savefig(tmp_path / "relationships.png")
    assert (tmp_path / "relationships.png").stat().st_size > 5000
