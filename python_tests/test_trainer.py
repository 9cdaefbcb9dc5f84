"""The training loop: what a step computes, for each shape of step, and what a run leaves alone."""

import json
from dataclasses import replace

import pytest
import torch
from small_data import OWN_TASKS, SIZE, TASKS, make_data, make_own_data, make_split
from torch import nn

from mtl_ext.data import MultiTaskData
from mtl_ext.methods import EW, FAMO, METHODS
from mtl_ext.trainers import TrainConfig, Trainer, cpu_threads, relative_step_times, timing, train_run
from mtl_ext.trainers.evaluation import evaluate

BASE = TrainConfig(model_options={"size": SIZE}, epochs=2, batch_size=32, lr=1e-2, monitor_every=2)
SGD = replace(BASE, optimizer="SGD", schedule="constant", monitor_every=0)
VARIANTS = [
    pytest.param(name, level, id=f"{name}-{level}")
    for name, method in METHODS.items()
    for level in (("parameter", "feature") if method.level == "gradient" else ("parameter",))
]


def parameters(trainer):
    return torch.cat([param.detach().flatten() for param in trainer.parts.model.parameters()])


def trained(config, data=None):
    trainer = Trainer(config, make_data() if data is None else data)
    trainer.fit()
    return trainer


@pytest.mark.parametrize(("method", "level"), VARIANTS)
def test_every_method_learns_and_goes_on_bit_for_bit_from_its_state(method, level, tmp_path):
    config = replace(BASE, method=method, level=level, epochs=4, lr=4e-2, eval_every=4, monitor_every=6)
    config = replace(config, holdout=0.1, checkpoint_steps=10, checkpoint_every=0)
    whole, resumed, path = Trainer(config, make_data()), Trainer(config, make_data()), tmp_path / "checkpoint.pt"
    kept = []

    def keep_an_epochs_middle(record):
        if record.step == 11:
            kept.append(path.read_bytes())

    result = whole.fit(keep_an_epochs_middle, checkpoint=path)
    path.write_bytes(kept[0])
    resumed.load(path)
    assert resumed.steps_done == 10
    assert replace(resumed.fit(), step_seconds=0.0) == replace(result, step_seconds=0.0)
    assert torch.equal(parameters(resumed), parameters(whole))
    begin, end = (torch.tensor(list(result.epochs[epoch].losses.values())) for epoch in (0, -1))
    assert (end / begin).mean() < 0.95  # of each loss, whatever its unit: some methods look at nothing else
    json.dumps(result.to_dict(), allow_nan=False)


def test_two_runs_of_one_seed_are_equal_and_another_seed_gives_another_run():
    first, again, other = (train_run(replace(BASE, seed=seed), make_data()) for seed in (0, 0, 1))
    assert replace(first, step_seconds=0.0) == replace(again, step_seconds=0.0)
    assert first.epochs[0].losses != other.epochs[0].losses


def test_equal_weighting_is_the_plain_loop():
    data = make_data()
    trainer, model = Trainer(replace(BASE, schedule="constant"), data), Trainer(BASE, data).parts.model
    optimizer = torch.optim.Adam(model.parameters(), lr=BASE.lr)
    order = torch.Generator().manual_seed(BASE.seed)
    for _ in range(BASE.epochs):
        for batch in data.train.batches(BASE.batch_size, order):
            outputs = model(batch.inputs)
            loss = sum(task.loss(outputs[task.name], batch.targets[task.name]) for task in TASKS)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trainer.fit()
    for mine, plain in zip(trainer.parts.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("method", ["EW", "PCGrad"])
def test_the_monitor_does_not_change_training(method):
    config = replace(BASE, method=method)
    watched = train_run(replace(config, monitor_every=1), make_data())
    alone = train_run(replace(config, monitor_every=0), make_data())
    assert watched.epochs == alone.epochs
    assert (len(watched.similarity), alone.similarity) == (6, [])
    assert -1 <= watched.mean_similarity("parameter_gds") <= 1
    assert alone.mean_similarity("parameter_gds") != alone.mean_similarity("parameter_gds")


def test_training_leaves_the_global_generator_and_threads_alone():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_run(replace(BASE, threads=2, epochs=1), make_data())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    with cpu_threads(2):
        assert torch.get_num_threads() == 2


def test_the_methods_parameters_are_trained_without_weight_decay():
    config = replace(SGD, method="UW", optimizer_options={"weight_decay": 0.1}, method_lr=0.5)
    trainer = Trainer(config, make_data())
    model_group, method_group = trainer.parts.optimizer.param_groups
    assert (model_group["lr"], model_group["weight_decay"]) == (1e-2, 0.1)
    assert (method_group["lr"], method_group["weight_decay"]) == (0.5, 0.0)
    assert [id(param) for param in method_group["params"]] == [id(p) for p in trainer.parts.method.parameters()]
    trainer.fit()
    assert all(param.abs().min() > 0 for param in trainer.parts.method.parameters())


def test_tasks_are_chosen_by_name():
    result = train_run(replace(BASE, tasks=("mean", "brightest")), make_data())
    assert list(result.measures) == ["mean", "brightest"]
    assert list(result.epochs[0].weights) == ["mean", "brightest"]


def test_a_method_hears_of_epochs_and_sees_the_batch_again_after_the_step():
    trainer, calls = Trainer(replace(BASE, schedule="constant"), make_data()), []

    class Curious(EW):
        second_look = True

        def backward(self, losses, **options):
            self.before = {name: loss.item() for name, loss in losses.items()}
            return super().backward(losses, **options)

        def look_again(self, losses):
            assert losses.keys() == self.before.keys()
            assert not any(loss.requires_grad for loss in losses.values())
            calls.append(sum(losses.values()).item() - sum(self.before.values()))

        def end_epoch(self):
            calls.append("epoch")

    trainer.parts.method = Curious()
    result = trainer.fit()
    assert [call if call == "epoch" else "step" for call in calls] == (["step"] * 3 + ["epoch"]) * 2
    assert any(call != "epoch" and call < 0 for call in calls)
    assert result.epochs == train_run(replace(BASE, schedule="constant"), make_data()).epochs


def test_the_second_look_leaves_running_statistics_alone():
    trainers = [Trainer(replace(BASE, method=name), make_data()) for name in ("FAMO", "EW")]
    for trainer in trainers:
        trainer.parts.model.encoder = nn.Sequential(nn.BatchNorm2d(1, momentum=0.5), trainer.parts.model.encoder)
        trainer.step(next(trainer.step.batches(torch.Generator().manual_seed(0))))
    famo, plain = (trainer.parts.model.encoder[0] for trainer in trainers)
    assert isinstance(trainers[0].parts.method, FAMO)
    assert torch.equal(famo.running_mean, plain.running_mean)
    assert (plain.running_mean.abs().sum() > 0, famo.num_batches_tracked) == (True, 1)


def test_a_method_hears_how_well_the_tasks_do_on_validation_data():
    trainer, heard = Trainer(replace(BASE, method="DTP", holdout=0.25), make_data()), []
    trainer.parts.method.update_performance = heard.append
    val = [record.val for record in trainer.fit().epochs]
    for values, measures in zip(heard, val, strict=True):
        accuracy, iou, error = (next(iter(measures[task.name].values())) for task in TASKS)
        assert values == pytest.approx([max(accuracy / 100, 1e-3), iou / 100, 1 / (1 + error)])


@pytest.mark.parametrize("method", ["PCGrad", "MGDA"])
def test_accumulation_by_tasks_equals_the_large_batch(method):
    config = replace(SGD, method=method, epochs=1)
    large = trained(replace(config, batch_size=40))  # 96 samples: 40, 40 and 16
    small = trained(replace(config, batch_size=10, accumulate=4, accumulate_by="tasks"))
    assert large.steps_per_epoch == small.steps_per_epoch == 3
    assert torch.allclose(parameters(small), parameters(large), atol=1e-6)
    record, expected = small.progress.records[0], large.progress.records[0]
    assert record.losses == pytest.approx(expected.losses, rel=1e-5)
    assert record.weights == pytest.approx(expected.weights, rel=1e-4)


def test_accumulation_of_combinations_is_their_mean_over_samples():
    config = replace(SGD, epochs=1)
    large = trained(replace(config, batch_size=40))
    small = trained(replace(config, batch_size=15, accumulate=3))  # 15, 15, 15, then 15, 15, 15, then 6: other steps
    assert small.steps_per_epoch == 3
    exact = trained(replace(config, batch_size=10, accumulate=4))
    assert torch.allclose(parameters(exact), parameters(large), atol=1e-6)
    data = make_data()
    sums = trained(replace(config, method="UW", batch_size=12, accumulate=8), data).parts
    whole = trained(replace(config, method="UW", batch_size=96), data).parts
    for mine, theirs in zip(sums.method.parameters(), whole.method.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_uneven_batches_count_by_their_samples():
    config = replace(SGD, epochs=1, batch_size=64, accumulate=2)  # 64 and 32 samples in one step
    assert torch.allclose(parameters(trained(config)), parameters(trained(replace(SGD, epochs=1, batch_size=96))))


@pytest.mark.parametrize("method", ["MoDo", "SDMGrad"])
def test_a_method_of_several_batches_gets_independent_ones(method):
    trainer = Trainer(replace(BASE, method=method), make_data())
    draws = [draw for group in trainer.step.batches(torch.Generator().manual_seed(0)) for draw in group]
    assert [len(draw) for draw in draws] == [3, 3, 3]
    assert not torch.equal(draws[0][0].inputs, draws[0][1].inputs)
    passes = [torch.cat([draw[index].inputs for draw in draws]).flatten().sort().values for index in range(3)]
    assert torch.equal(passes[0], passes[2])


@pytest.mark.parametrize(
    ("method", "level"), [("EW", "parameter"), ("PCGrad", "parameter"), ("MoDo", "parameter"), ("IMTLL", "parameter")]
)
def test_tasks_with_inputs_of_their_own_learn(method, level):
    config = replace(BASE, method=method, level=level, epochs=6, lr=3e-2)
    result = train_run(config, make_own_data())
    assert list(result.measures) == [task.name for task in OWN_TASKS]
    begin, end = (torch.tensor(list(result.epochs[epoch].losses.values())) for epoch in (0, -1))
    assert (end < begin).all()


def test_own_inputs_at_feature_level_are_for_methods_that_compare_nothing():
    with pytest.raises(ValueError, match="PCGrad compares the tasks' gradients"):
        train_run(replace(BASE, method="PCGrad", level="feature", monitor_every=0), make_own_data())


def test_each_tasks_own_stream_is_measured_whole():
    data = make_own_data()
    trainer = Trainer(BASE, data)
    measures = evaluate(trainer.parts, trainer.step.forward, data.test)
    for task in OWN_TASKS:
        split = data.test.splits[task.name]
        features = trainer.parts.model.features({name.name: split.inputs for name in OWN_TASKS})
        metric = task.metrics[0]()
        metric.update(trainer.parts.model.outputs(features)[task.name].detach(), split.targets[task.name])
        assert measures[task.name][metric.name] == pytest.approx(metric.compute())


def test_bfloat16_trains_in_low_precision_on_float32_parameters():
    config = replace(BASE, precision="bfloat16", epochs=6, lr=3e-2, method="PCGrad")
    trainer = Trainer(config, make_data())
    features, _, losses = trainer.step.forward.losses(next(trainer.parts.data.train.batches(8)))
    assert features.dtype == torch.bfloat16
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {param.dtype for param in trainer.parts.model.parameters()} == {torch.float32}
    epochs = trainer.fit().epochs
    assert sum(epochs[-1].losses.values()) < 0.9 * sum(epochs[0].losses.values())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_network_trains_as_it_does_without():
    config = replace(BASE, method="PCGrad", level="feature", epochs=1, batch_size=48)
    compiled = train_run(replace(config, compile=True, compile_options={"backend": "eager"}), make_data())
    plain = train_run(config, make_data())
    assert compiled.epochs[0].losses == pytest.approx(plain.epochs[0].losses, rel=1e-4)


@pytest.mark.parametrize("method", ["UW", "PCGrad"])
def test_a_scaled_loss_trains_as_an_unscaled_one(method):
    config = replace(BASE, method=method, clip_norm=0.5, accumulate=2)
    scaled, plain = Trainer(config, make_data()), trained(config)
    scaled.parts.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled.fit()
    assert torch.allclose(parameters(scaled), parameters(plain), atol=1e-5)
    assert scaled.state_dict()["scaler"]["scale"] == 1024.0


def test_long_gradients_are_shortened():
    trainer = Trainer(replace(SGD, clip_norm=1e-3, lr=1.0, epochs=1, batch_size=96), make_data())
    before = parameters(trainer)
    trainer.fit()
    assert (parameters(trainer) - before).norm() == pytest.approx(1e-3, rel=1e-3)


def test_callbacks_see_every_step_and_epoch():
    steps, epochs = [], []
    Trainer(BASE, make_data()).fit(steps.append, epochs.append)
    assert [(record.step, record.total, record.epoch) for record in steps] == [
        (step, 6, 1 + step // 4) for step in range(1, 7)
    ]
    assert [record.epoch for record in epochs] == [1, 2]
    mean = sum(record.losses["mean"] for record in steps[:3]) / 3
    assert epochs[0].losses["mean"] == pytest.approx(mean)


def test_a_loss_that_is_not_finite_names_task_and_step():
    calls = []

    def bad_loss(output, target):
        calls.append(1)
        return output.mean() * (torch.nan if len(calls) > 2 else 1.0)

    tasks = (TASKS[0], replace(TASKS[2], loss=bad_loss))
    data = MultiTaskData(tasks, make_split(96, 0), make_split(8, 1))
    with pytest.raises(FloatingPointError, match="step 3 of 6: the loss of task 'mean' is nan: lower lr"):
        train_run(BASE, data)
    calls.clear()
    config = replace(BASE, method_options={"nonfinite": "skip"}, monitor_every=0)
    assert torch.isfinite(parameters(trained(config, data))).all()


def test_relative_step_times_ignore_a_machine_that_slows_down(monkeypatch):
    clock = {"now": 0.0, "speed": 1.0}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock["now"])

    def step(seconds):
        clock["now"] += seconds * clock["speed"]
        clock["speed"] *= 1.001

    times = relative_step_times({"a": lambda: step(1.0), "b": lambda: step(2.5)}, "a", rounds=9)
    assert times["a"] == 1.0
    assert times["b"] == pytest.approx(2.5, rel=0.01)


def test_relative_step_times_need_their_reference():
    with pytest.raises(ValueError, match=r"reference 'c'.*out of a"):
        relative_step_times({"a": lambda: None}, "c")
    with pytest.raises(ValueError, match="rounds 0"):
        relative_step_times({"a": lambda: None}, "a", rounds=0)
