"""Self-auxiliary tasks: whose labels, whose path, whose gradients, and that nothing of them is left."""

from dataclasses import replace

import pytest
import torch
from small_data import SIZE, TASKS, make_data
from torch import nn

from mtl_ext.models import SelfAuxiliaries
from mtl_ext.models.half_shared import branch_off
from mtl_ext.models.self_auxiliary import all_pairs, self_auxiliary_tasks
from mtl_ext.task_names import is_primary, self_auxiliary_name, split_name
from mtl_ext.trainers import TrainConfig, Trainer, train_run

NAMES = ("a", "b", "c")
CONFIG = TrainConfig(
    model="half_shared",
    model_options={"width": 4, "in_channels": 1, "hidden": 8, "rates": [1], "shared_blocks": 3},
    tasks=("brightest", "mean"),
    epochs=1,
    batch_size=48,
    self_auxiliaries=("all",),
    monitor_every=0,
)


def network(pairs=None):
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Sequential(nn.Linear(4, 4), nn.Tanh())]
    heads = {name: nn.Linear(4, 2 + i) for i, name in enumerate(NAMES)}
    return SelfAuxiliaries(branch_off(blocks, 1, heads), all_pairs(NAMES) if pairs is None else pairs)


def reached(model, loss):
    params = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True, retain_graph=True)
    return {name for name, grad in zip(params, grads, strict=True) if grad is not None}


def test_a_self_auxiliarys_gradient_reaches_the_shared_part_the_targets_branch_and_its_own_decoder_alone():
    model = network()
    outputs = model(torch.randn(5, 4))
    names = dict.fromkeys(name for name, _ in model.named_parameters())
    for task, (source, target) in {**model.pairs, "b": ("b", "b")}.items():
        own = f"decoders.{task}." if task in model.pairs else f"model.heads.{task}."
        expected = {n for n in names if n.startswith((own, "model.encoder.", f"model.branches.{target}."))}
        assert reached(model, outputs[task].square().sum()) == expected
        assert len(expected) == 6
        assert outputs[task].shape[-1] == 2 + NAMES.index(source)


def test_a_decoder_has_the_sources_architecture_and_parameters_of_its_own():
    model = network()
    for name, (source, _) in model.pairs.items():
        own, copied = model.head(name), model.head(source)
        assert own.weight.shape == copied.weight.shape
        assert not torch.equal(own.weight, copied.weight)


def test_each_branch_runs_once_for_all_decoders_that_read_it():
    model, calls = network(), []
    for name, branch in model.model.branches.items():
        branch.register_forward_hook(lambda *_, name=name: calls.append(name))
    outputs = model(torch.randn(5, 4))
    assert list(outputs) == list(model.tasks)
    assert len(outputs) == 9
    assert sorted(calls) == sorted(NAMES)


def test_inputs_of_the_tasks_own_go_through_the_targets_path():
    model = network(pairs=[("a", "b")])
    inputs = {name: torch.randn(5, 4) for name in NAMES}
    shared, branch = model.model.encoder, model.model.branches["b"]
    expected = model.decoders["a->b"](branch(shared(inputs["a"])))
    torch.testing.assert_close(model(inputs)["a->b"], expected)


def test_with_tasks_of_one_input_the_features_give_the_same_by_task_and_at_once():
    model = network()
    z = model.features(torch.randn(5, 4))
    for task, read in model.head_inputs(z).items():
        torch.testing.assert_close(read, model.head_features(z, task))


def test_what_is_deployed_has_nothing_of_the_auxiliaries():
    model = network()
    assert model.deployed() is model.model
    assert not any("->" in name for name in model.deployed().state_dict())


def test_every_parameter_belongs_to_one_task_or_to_all():
    model = network()
    groups = [model.shared_parameters(), *(model.task_parameters(task) for task in model.tasks)]
    ids = [id(param) for group in groups for param in group]
    assert sorted(ids) == sorted(id(param) for param in model.parameters())


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", "z")], "self-auxiliary 'a->z': expected two of the tasks a, b, c"),
        ([("a", "a")], "self-auxiliary 'a->a': expected two different tasks"),
        ([("a", "b"), ("a", "b")], "self-auxiliary 'a->b': .* each pair once"),
    ],
)
def test_pairs_that_cannot_be_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        network(pairs=pairs)


def test_names_and_tasks_of_pairs():
    assert all_pairs(("a", "b")) == [("b", "a"), ("a", "b")]
    assert split_name(self_auxiliary_name("a", "b")) == ("a", "b")
    assert split_name("a") == ("a", "a")
    assert is_primary("a")
    assert not is_primary("a->b")
    (task,) = self_auxiliary_tasks(TASKS, [("mean", "bright")])
    assert (task.name, task.source, task.metrics, task.loss) == ("mean->bright", "mean", (), TASKS[2].loss)


def test_training_saves_and_measures_the_primary_tasks_alone(tmp_path):
    result = train_run(CONFIG, make_data(), tmp_path / "run")
    assert list(result.measures) == ["brightest", "mean"]
    assert list(result.epochs[0].losses) == ["brightest", "mean", "mean->brightest", "brightest->mean"]
    saved = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    plain = Trainer(replace(CONFIG, self_auxiliaries=()), make_data()).parts.model
    plain.load_state_dict(saved)
    assert TrainConfig.load(tmp_path / "run" / "config.yaml") == CONFIG


def test_an_auxiliary_task_trains_on_its_sources_labels():
    config = replace(CONFIG, self_auxiliaries=("mean->brightest",))
    trainer = Trainer(config, make_data())
    batch = next(trainer.parts.data.train.batches(8))
    found = trainer.step.forward.losses(batch)
    model = trainer.parts.model
    output = model.head("mean->brightest")(found.head_inputs["brightest"])
    torch.testing.assert_close(found.losses["mean->brightest"], TASKS[2].loss(output, batch.targets["mean"]))
    assert found.head_inputs["mean->brightest"] is found.head_inputs["brightest"]


def test_networks_without_branches_are_refused():
    config = replace(CONFIG, model="small_conv", model_options={"size": SIZE})
    with pytest.raises(ValueError, match="path of its own, which model 'small_conv' has not: take half_shared"):
        Trainer(config, make_data())
