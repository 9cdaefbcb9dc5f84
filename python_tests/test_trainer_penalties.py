"""What joins a method in the trainer: penalties, sharpness-aware ascent, several decoders, normalised lengths."""

from dataclasses import replace

import pytest
import torch
from small_data import OWN_TASKS, SIZE, TASKS, make_data, make_own_data

from mtl_ext.comparators import PTA, SAM
from mtl_ext.penalties import DGR
from mtl_ext.trainers import TrainConfig, Trainer, train_run

BASE = TrainConfig(model_options={"size": SIZE}, epochs=2, batch_size=32, lr=1e-2, monitor_every=0, seed=3)
DGR_ON = replace(BASE, penalty="DGR", penalty_options={"strength": 0.1, "dummies": 2})
SGD = {"optimizer": "SGD", "schedule": "constant"}


def first_step(config, data=None):
    """The trainer after one step, and the gradients of that step."""
    trainer = Trainer(config, make_data() if data is None else data)
    group = next(trainer.step.batches(torch.Generator().manual_seed(0)))
    trainer.step(group)
    return trainer, group


def gradients(trainer):
    return [param.grad.clone() for param in trainer.parts.model.parameters()]


@pytest.mark.parametrize(("method", "level"), [("EW", "parameter"), ("PCGrad", "parameter"), ("MGDA", "feature")])
def test_dgr_joins_every_method_as_in_ones_own_loop(method, level):
    config = replace(DGR_ON, method=method, level=level, **SGD)
    trainer, group = first_step(config)
    other = Trainer(config, make_data())
    parts, batch = other.parts, group[0][0]
    dgr = DGR(
        {task.name: parts.model.head(task.name) for task in parts.tasks},
        {task.name: task.loss for task in parts.tasks},
        strength=0.1,
        dummies=2,
        seed=3,
    )
    z = parts.model.features(batch.inputs)
    outputs = parts.model.outputs(z)
    losses = {task.name: task.loss(outputs[task.name], batch.targets[task.name]) for task in parts.tasks}
    at = {"features": z} if level == "feature" else {"shared": parts.model.shared_parameters()}
    parts.method.backward(losses, penalties=[dgr(z, batch.targets)], **at)
    for mine, theirs in zip(gradients(trainer), gradients(other), strict=True):
        torch.testing.assert_close(mine, theirs)
    plain, _ = first_step(replace(config, penalty=None, penalty_options={}))
    pairs = list(zip(plain.parts.model.shared_parameters(), trainer.parts.model.shared_parameters(), strict=True))
    assert not all(torch.equal(mine.grad, theirs.grad) for mine, theirs in pairs)
    for task in TASKS:
        heads = [t.parts.model.task_parameters(task.name) for t in (plain, trainer)]
        for mine, theirs in zip(*heads, strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_accumulated_penalties_equal_those_of_samples_on_average():
    sample = {"strength": 0.1, "reduction": "sample"}
    one = replace(DGR_ON, penalty_options=sample, method="PCGrad", accumulate=1, batch_size=32, **SGD)
    several = replace(one, accumulate=4, batch_size=8, accumulate_by="tasks")
    (whole, _), (parted, _) = first_step(one), first_step(several)
    for mine, theirs in zip(gradients(whole), gradients(parted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_methods_of_several_batches_and_inputs_of_their_own_take_penalties():
    assert Trainer(replace(DGR_ON, method="MoDo"), make_data()).fit().epochs
    own = replace(DGR_ON, tasks=tuple(task.name for task in OWN_TASKS), method="PCGrad")
    assert Trainer(own, make_own_data()).fit().epochs


@pytest.mark.parametrize(
    "change",
    [
        {"penalty": "DGR", "penalty_options": {"strength": 0.1}},
        {"penalty": "DGR", "penalty_options": {"strength": 0.1, "mode": "finite_difference"}},
        {"sam_rho": 0.05},
        {"decoders": 3},
        {"normalise": True, "method": "MGDA"},
        {"penalty": "DGR", "penalty_options": {"strength": 0.1}, "sam_rho": 0.05, "method": "AutoLambda"},
    ],
)
def test_runs_go_on_bit_for_bit(change, tmp_path):
    config = replace(BASE, checkpoint_steps=4, checkpoint_every=0, **change)
    whole, resumed, path = Trainer(config, make_data()), Trainer(config, make_data()), tmp_path / "checkpoint.pt"
    kept = []

    def keep(record):
        if record.step == 5:
            kept.append(path.read_bytes())

    result = whole.fit(keep, checkpoint=path)
    path.write_bytes(kept[0])
    resumed.load(path)
    assert resumed.steps_done == 4
    assert replace(resumed.fit(), step_seconds=0.0) == replace(result, step_seconds=0.0)


def test_a_run_with_a_penalty_learns_and_its_file_repeats_it(tmp_path):
    config = replace(DGR_ON, penalty_options={"strength": 1e-3})
    result = train_run(config, make_data(), tmp_path)
    assert result.epochs[-1].losses["brightest"] < result.epochs[0].losses["brightest"]
    assert TrainConfig.load(tmp_path / "config.yaml") == config


def test_sam_is_the_step_of_ones_own_loop():
    config = replace(BASE, sam_rho=0.1, method="PCGrad", **SGD)
    trainer, group = first_step(config)
    other = Trainer(replace(config, sam_rho=None), make_data())
    parts, batch = other.parts, group[0][0]

    def losses():
        outputs = parts.model(batch.inputs)
        return {task.name: task.loss(outputs[task.name], batch.targets[task.name]) for task in parts.tasks}

    sam = SAM(parts.optimizer, parts.model, rho=0.1)
    sam.step(losses, lambda: parts.method.backward(losses(), shared=parts.model.shared_parameters()))
    for mine, theirs in zip(trainer.parts.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_sam_takes_the_mean_of_accumulated_batches():
    one = replace(BASE, sam_rho=0.1, batch_size=32, **SGD)
    several = replace(one, accumulate=4, batch_size=8)
    (whole, _), (parted, _) = first_step(one), first_step(several)
    for mine, theirs in zip(whole.parts.model.parameters(), parted.parts.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_several_decoders_train_on_their_mean_and_the_first_predicts():
    trainer, group = first_step(replace(BASE, decoders=3, **SGD))
    head = trainer.parts.model.head("brightest")
    assert isinstance(head, PTA)
    assert len(head.decoders) == 3
    assert all(param.grad is not None for param in head.parameters())
    batch, task = group[0][0], trainer.parts.tasks[0]
    found = trainer.step.forward.losses(batch)
    outputs = head.outputs(found.head_inputs[task.name])
    mean = sum(task.loss(out, batch.targets[task.name]) for out in outputs) / 3
    torch.testing.assert_close(found.losses[task.name], mean)
    trainer.parts.model.eval()
    torch.testing.assert_close(trainer.step.forward(batch)[task.name], head.decoders[0](found.head_inputs[task.name]))


@pytest.mark.parametrize(("method", "level"), [("MGDA", "parameter"), ("PCGrad", "feature"), ("UW", "parameter")])
def test_normalised_gradients_have_the_length_of_equal_weighting(method, level):
    config = replace(BASE, method=method, level=level, **SGD)
    (free, _), (normalised, _), (equal, _) = (
        first_step(c) for c in (config, replace(config, normalise=True), replace(BASE, **SGD))
    )
    three = [t.parts.model.shared_parameters() for t in (free, normalised, equal)]
    lengths = [torch.cat([param.grad.flatten() for param in shared]) for shared in three]
    torch.testing.assert_close(lengths[1].norm(), lengths[2].norm())
    torch.testing.assert_close(lengths[1] / lengths[1].norm(), lengths[0] / lengths[0].norm())
    head = zip(free.parts.model.task_parameters("mean"), normalised.parts.model.task_parameters("mean"), strict=True)
    assert all(torch.equal(mine.grad, theirs.grad) for mine, theirs in head)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_monitor_records_how_long_the_methods_gradient_is(normalise):
    result = Trainer(replace(BASE, method="MGDA", monitor_every=2, normalise=normalise), make_data()).fit()
    for record in result.similarity:
        assert 0 < record["combined_norm"] < record["parameter_norm_sum"]  # the shortest convex combination
    equal = Trainer(replace(BASE, method="EW", monitor_every=2), make_data()).fit()
    for record in equal.similarity:
        assert record["combined_norm"] == pytest.approx(record["parameter_norm_sum"], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": "L2"}, "there is no penalty 'L2'; there are DGR"),
        ({"penalty": "DGR"}, "penalty 'DGR' needs the option 'strength'"),
        ({"penalty": "DGR", "penalty_options": {"strength": 1, "c": 2}}, "penalty 'DGR' has no option 'c'; it has"),
        ({"penalty": "DGR", "decoders": 2}, "expected decoders 1, not 2"),
        ({"normalise": True, "accumulate": 2}, "expected accumulate 1, not 2"),
        ({"sam_rho": 0.0}, "sam_rho is 0.0, expected a number above 0"),
        ({"decoders": 0}, "decoders is 0, expected a number at least 1"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Trainer(replace(BASE, **change), make_data())
