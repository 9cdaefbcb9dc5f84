"""The single-batch loop: what it computes, that it repeats, what it refuses."""

import json
from dataclasses import replace

import pytest
import torch
from small_data import SIZE, TASKS, make_data, make_split

from mtl_ext.data import MultiTaskData
from mtl_ext.methods import EW, METHODS
from mtl_ext.trainers import SingleTrainer, TrainConfig, cpu_threads, relative_step_times, timing

BASE = TrainConfig(model_options={"size": SIZE}, epochs=2, batch_size=32, lr=1e-2, monitor_every=2)
VARIANTS = [
    pytest.param(name, level, id=f"{name}-{level}")
    for name, method in METHODS.items()
    for level in (("parameter", "feature") if method.level == "gradient" else ("parameter",))
]


@pytest.mark.parametrize(("method", "level"), VARIANTS)
def test_every_method_learns_and_two_runs_are_equal_bit_for_bit(method, level):
    config = replace(BASE, method=method, level=level, epochs=10, lr=2e-2)
    first, second = (SingleTrainer(config, make_data()) for _ in range(2))
    result = first.fit()
    assert replace(second.fit(), step_seconds=0.0) == replace(result, step_seconds=0.0)
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    begin, end = (torch.tensor(list(result.epochs[epoch].losses.values())) for epoch in (0, -1))
    assert (end / begin).mean() < 0.9  # of each loss, whatever its unit: some methods look at nothing else
    json.dumps(result.to_dict(), allow_nan=False)


def test_another_seed_gives_another_run():
    results = [SingleTrainer(replace(BASE, seed=seed), make_data()).fit() for seed in (0, 1)]
    assert results[0].epochs[0].losses != results[1].epochs[0].losses


def test_equal_weighting_is_the_plain_loop():
    data = make_data()
    trainer = SingleTrainer(replace(BASE, schedule="constant"), data)
    model = SingleTrainer(BASE, data).model
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
    for mine, plain in zip(trainer.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("method", ["EW", "PCGrad"])
def test_the_monitor_does_not_change_training(method):
    config = replace(BASE, method=method)
    watched = SingleTrainer(replace(config, monitor_every=1), make_data()).fit()
    alone = SingleTrainer(replace(config, monitor_every=0), make_data()).fit()
    assert watched.epochs == alone.epochs
    assert (len(watched.similarity), alone.similarity) == (6, [])
    assert -1 <= watched.mean_similarity("parameter_gds") <= 1
    assert alone.mean_similarity("parameter_gds") != alone.mean_similarity("parameter_gds")


def test_training_leaves_the_global_generator_and_threads_alone():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    SingleTrainer(replace(BASE, threads=2), make_data()).fit()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    with cpu_threads(2):
        assert torch.get_num_threads() == 2


def test_the_methods_parameters_are_trained_without_weight_decay():
    options = {"weight_decay": 0.1}
    config = replace(BASE, method="UW", optimizer="SGD", optimizer_options=options, method_lr=0.5, schedule="constant")
    trainer = SingleTrainer(config, make_data())
    model_group, method_group = trainer.optimizer.param_groups
    assert (model_group["lr"], model_group["weight_decay"]) == (1e-2, 0.1)
    assert (method_group["lr"], method_group["weight_decay"]) == (0.5, 0.0)
    assert [id(param) for param in method_group["params"]] == [id(param) for param in trainer.method.parameters()]
    trainer.fit()
    assert all(param.abs().min() > 0 for param in trainer.method.parameters())


def test_the_cosine_schedule_ends_at_zero():
    trainer = SingleTrainer(BASE, make_data())
    trainer.fit()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_tasks_are_chosen_by_name():
    result = SingleTrainer(replace(BASE, tasks=("mean", "brightest")), make_data()).fit()
    assert list(result.measures) == ["mean", "brightest"]
    assert list(result.epochs[0].weights) == ["mean", "brightest"]


def test_a_method_hears_of_epochs_and_sees_the_batch_again_after_the_step():
    trainer, calls = SingleTrainer(replace(BASE, schedule="constant"), make_data()), []

    class Curious(EW):
        second_look = True

        def backward(self, losses, **levels):
            self.before = {name: loss.item() for name, loss in losses.items()}
            return super().backward(losses, **levels)

        def look_again(self, losses):
            assert losses.keys() == self.before.keys()
            assert not any(loss.requires_grad for loss in losses.values())
            calls.append(sum(losses.values()).item() - sum(self.before.values()))

        def end_epoch(self):
            calls.append("epoch")

    trainer.method = Curious()
    result = trainer.fit()
    assert [call if call == "epoch" else "step" for call in calls] == (["step"] * 3 + ["epoch"]) * 2
    assert any(call != "epoch" and call < 0 for call in calls)
    plain = SingleTrainer(replace(BASE, schedule="constant"), make_data()).fit()
    assert result.epochs == plain.epochs


def test_callbacks_see_every_step_and_epoch():
    steps, epochs = [], []
    SingleTrainer(BASE, make_data()).fit(lambda: steps.append(1), epochs.append)
    assert (len(steps), [record.epoch for record in epochs]) == (6, [1, 2])


def test_a_loss_that_is_not_finite_names_task_and_step():
    calls = []

    def bad_loss(output, target):
        calls.append(1)
        return output.mean() * (torch.nan if len(calls) > 2 else 1.0)

    tasks = (TASKS[0], replace(TASKS[2], loss=bad_loss))
    data = MultiTaskData(tasks, make_split(96, 0), make_split(8, 1))
    with pytest.raises(FloatingPointError, match="task 'mean' is nan at step 2: lower lr"):
        SingleTrainer(BASE, data).fit()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"threads": 0}, "threads is 0"),
        ({"monitor_every": -1}, "monitor_every is -1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"level": "loss"}, "level is 'loss', expected one of parameter, feature"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"method": "Best"}, "no method 'Best'; there are .*PCGrad"),
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
        SingleTrainer(replace(BASE, **change), make_data())


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="no data set 'imagenet'; there are multi_mnist"):
        SingleTrainer(replace(BASE, data="imagenet"))


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
