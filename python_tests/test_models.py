"""Architectures: the shapes between their parts, and the boundaries that methods rely on, for every network."""

from dataclasses import replace

import pytest
import torch
from model_cases import BATCH, CASES, DEPTH, FLAT, MIXED, PIXELS, ModelCase
from torch import nn

from mtl_ext.methods import EW, PCGrad
from mtl_ext.methods.grad_method import GramMethod
from mtl_ext.models import MODELS, HardSharing, fresh_copy, small_conv
from mtl_ext.models.half_shared import branch_off
from mtl_ext.trainers import TrainConfig
from mtl_ext.trainers.build import build_model

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
case_of = {case.id: case for case in CASES}


class Sum(GramMethod):
    """All weights 1, by way of per-task gradients."""

    def __init__(self, compares):
        super().__init__()
        self.compares = compares

    def task_weights(self, gram, losses):
        return torch.ones_like(losses)


def losses_of(outputs):
    """A loss per task that depends on all entries."""
    return {task: (output - 0.3 * k).square().mean() for k, (task, output) in enumerate(outputs.items(), start=1)}


def listed(features):
    """The features in a list, those of a mapping by task."""
    if isinstance(features, torch.Tensor):
        return [features]
    return list(features.values()) if isinstance(features, dict) else list(features)


def gradients(model):
    """Name -> gradient; clears them."""
    grads = {name: param.grad for name, param in model.named_parameters()}
    model.zero_grad()
    return grads


def assert_equal_gradients(found, expected):
    assert {name for name, grad in found.items() if grad is None} == {n for n, g in expected.items() if g is None}
    scale = max(grad.abs().max() for grad in expected.values() if grad is not None)
    for name, grad in expected.items():
        if grad is not None:
            assert (found[name] - grad).abs().max() <= 1e-10 * scale, name


@every_case
def test_outputs_have_the_shapes_that_the_kinds_promise(case):
    model, inputs = case.make(), case.inputs()
    outputs = model(inputs)
    size = case.shape[-2:]
    expected = {task.name: (task.outputs, *size) if task.kind == "pixels" else (task.outputs,) for task in case.tasks}
    assert {task: tuple(output.shape[1:]) for task, output in outputs.items()} == expected
    assert all(len(output) == BATCH for output in outputs.values())
    assert list(outputs) == list(model.tasks) == [task.name for task in case.tasks]


@every_case
def test_outputs_come_from_features_branch_and_head_in_turn(case):
    model, inputs = case.make().eval(), case.inputs()
    features, outputs = model.features(inputs), model(inputs)
    for task, output in model.outputs(features).items():
        assert torch.equal(output, outputs[task])
        assert torch.equal(output, model.head(task)(model.head_features(features, task)))


@every_case
def test_every_parameter_is_shared_or_belongs_to_the_one_task_whose_loss_reaches_it(case):
    model, inputs = case.make(), case.inputs()
    shared = model.shared_parameters()
    own = {task: model.task_parameters(task) for task in model.tasks}
    ids = [id(param) for part in (shared, *own.values()) for param in part]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(param) for param in model.parameters()}
    losses = losses_of(model(inputs))
    for task, loss in losses.items():
        loss.backward(retain_graph=True)
        assert all(param.grad is not None for param in own[task])
        assert all(param.grad is None for other in own if other != task for param in own[other])
        model.zero_grad()
    sum(losses.values()).backward()
    assert all(param.grad is not None for param in shared)


@every_case
def test_no_feature_depends_on_another(case):
    features = listed(case.make().features(case.inputs()))
    for i, z in enumerate(features):
        others = features[:i] + features[i + 1 :]
        if others:
            found = torch.autograd.grad(z.sum(), others, retain_graph=True, allow_unused=True)
            assert found == (None,) * len(others)


@every_case
def test_gradients_by_way_of_features_or_shared_parameters_are_those_of_the_sum(case):
    model, inputs = case.make(torch.float64), case.inputs(torch.float64)
    features = model.features(inputs)
    losses = losses_of(model.outputs(features))
    sum(losses.values()).backward(retain_graph=True)
    expected = gradients(model)
    shared = model.shared_parameters()
    EW().backward(losses, features=features, retain_graph=True)
    assert_equal_gradients(gradients(model), expected)
    levels = ({"features": features}, {"shared": shared}, {"shared": shared, "features": features})
    for level in levels:
        Sum(compares=not case.own).backward(losses, retain_graph=True, **level)
        assert_equal_gradients(gradients(model), expected)


@every_case
def test_pcgrad_runs_at_both_levels(case):
    model = case.make()
    features = model.features(case.inputs())
    losses = losses_of(model.outputs(features))
    PCGrad().backward(losses, shared=model.shared_parameters(), retain_graph=True)
    assert all(grad is not None and grad.isfinite().all() for grad in gradients(model).values())
    if case.own:
        with pytest.raises(ValueError, match="reads features of its own input"):
            PCGrad().backward(losses, features=features)
    else:
        PCGrad().backward(losses, features=features)
        assert all(grad is not None and grad.isfinite().all() for grad in gradients(model).values())


@every_case
def test_a_task_sees_its_own_inputs_as_it_would_see_a_batch_for_all(case):
    model = case.make().eval()
    inputs = replace(case, own=True).inputs()
    if case.model in ("mtan", "resnet_fpn"):
        with pytest.raises(ValueError, match=r"give \d features for task '\w+', expected one tensor"):
            model(inputs)
        return
    outputs = model(inputs)
    assert list(model.features(inputs)) == list(model.tasks)
    first, *others = model.tasks
    with pytest.raises(ValueError, match=f"inputs are those of the tasks {first}, expected {first}, {others[0]}"):
        model({first: inputs[first]})
    if "task_norm" not in case.options:
        for task, own in inputs.items():
            torch.testing.assert_close(outputs[task], model(own)[task])


def test_rows_cover_all_networks():
    assert {case.model for case in CASES} == set(MODELS)


@pytest.mark.parametrize(
    ("case", "shapes"),
    [
        (case_of["deeplab-depth=18"], [(8, 8), (64, 24), (40, 56)]),
        (case_of["half_shared"], [(64, 32), (96, 160)]),
        (case_of["mtan-depth=18"], [(16, 24), (40, 8)]),
        (case_of["resnet_fpn"], [(36, 44), (64, 100)]),
        (case_of["small_dense-own"], [(64, 96), (4, 8)]),
    ],
    ids=lambda value: value.id if isinstance(value, ModelCase) else "",
)
def test_dense_outputs_have_the_size_of_the_inputs(case, shapes):
    model = replace(case, tasks=(PIXELS, DEPTH), own=False).make().eval()
    for height, width in shapes:
        outputs = model(torch.randn(2, 3, height, width))
        assert {task: tuple(output.shape) for task, output in outputs.items()} == {
            "seg": (2, 3, height, width),
            "depth": (2, 1, height, width),
        }


@pytest.mark.parametrize(("name", "multiple"), [("deeplab", 8), ("resnet_split", 32), ("mtan", 8), ("resnet_fpn", 4)])
def test_inputs_that_dense_outputs_could_not_match_are_refused(name, multiple):
    model = MODELS[name](MIXED, width=2, depth=18)
    with pytest.raises(ValueError, match=rf"inputs are 64 x 65 pixels, expected multiples of {multiple}"):
        model(torch.randn(2, 3, 64, 65))
    MODELS[name](FLAT, width=2, depth=18)(torch.randn(2, 3, 64, 65))


def test_a_single_task_network_is_the_same_class_with_one_head():
    model = small_conv(MIXED[1:2], size=8)
    assert isinstance(model, HardSharing)
    assert model.tasks == ("seg",)


def test_mtan_gives_methods_the_gradient_that_comes_through_attention_alone():
    case = case_of["mtan-depth=18"]
    model, inputs = case.make(torch.float64).eval(), case.inputs(torch.float64)
    taps = model.features(inputs)
    found = torch.autograd.grad(losses_of(model.outputs(taps))["seg"], taps)
    leaves = [tap.detach().requires_grad_() for tap in taps]
    expected = torch.autograd.grad(losses_of(model.outputs(leaves))["seg"], leaves)
    assert len(taps) == 8
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
        assert b.abs().max() > 0


def test_a_copy_of_mtans_head_reaches_attention_and_backbone():
    model = case_of["mtan-depth=18"].make()
    z = model.head_features(model.features(torch.randn(2, 3, 32, 32)), "seg")
    z.square().mean().backward()
    attention = {id(param) for param in model.branches["seg"].parameters()}
    reached = {id(param) for param in model.parameters() if param.grad is not None}
    assert reached == attention | {id(param) for param in model.shared_parameters()}


@pytest.mark.parametrize("shared_blocks", range(6))
def test_half_shared_networks_begin_as_the_shared_one(shared_blocks):
    options = {"width": 2, "rates": (1, 2, 3)}
    inputs = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    whole = MODELS["resnet_split"](MIXED, **options).eval()
    torch.manual_seed(0)
    model = MODELS["half_shared"](MIXED, shared_blocks, **options).eval()
    expected, found = whole(inputs), model(inputs)
    for task in model.tasks:
        assert torch.equal(found[task], expected[task])
    trunk = sum(param.numel() for param in whole.shared_parameters())
    shared = sum(param.numel() for param in model.shared_parameters())
    branch = sum(param.numel() for param in model.branches["seg"].parameters())
    assert shared + branch == trunk
    assert (shared == 0) == (shared_blocks == 0)
    assert (branch == 0) == (shared_blocks == 5)


def test_no_shared_block_gives_single_task_networks_side_by_side():
    model = MODELS["half_shared"](MIXED, 0, width=2, rates=(1, 2, 3), dropout=0.0)
    inputs = torch.randn(2, 3, 64, 64)
    assert model.features(inputs) is inputs
    assert model.shared_parameters() == []
    EW().backward(losses_of(model(inputs)))
    together = gradients(model)
    losses_of(model(inputs))["seg"].backward()
    for name, grad in gradients(model).items():
        assert (grad is not None) == (".seg." in name)
        if grad is not None:
            torch.testing.assert_close(grad, together[name])


def test_another_decoder_trains_the_path_that_it_is_put_on():
    model = MODELS["half_shared"](MIXED, 3, width=2, rates=(1, 2, 3))
    decoder = fresh_copy(model.head("kind"))
    z = model.features(torch.randn(2, 3, 64, 64))
    decoder(model.head_features(z, "seg")).square().mean().backward()
    reached = {id(param) for param in model.parameters() if param.grad is not None}
    path = [*model.shared_parameters(), *model.branches["seg"].parameters()]
    assert reached == {id(param) for param in path}


@every_case
def test_a_fresh_copy_of_a_head_shares_nothing_with_it(case):
    model, inputs = case.make(), case.inputs()
    model(inputs)
    heads = [model.head(task) for task in model.tasks]
    expected = [{name: tensor.clone() for name, tensor in head.state_dict().items()} for head in heads]
    copies = [fresh_copy(head) for head in heads]
    for head, copy, before in zip(heads, copies, expected, strict=True):
        assert all(torch.equal(head.state_dict()[name], tensor) for name, tensor in before.items())
        drawn = [name for name, tensor in before.items() if name.endswith("weight") and tensor.dim() > 1]
        assert drawn
        assert not any(torch.equal(copy.state_dict()[name], before[name]) for name in drawn)
        assert all(int(tensor) == 0 for name, tensor in copy.state_dict().items() if name.endswith("tracked"))


def test_a_head_that_cannot_be_drawn_anew_is_named():
    head = nn.Sequential(nn.PReLU(), nn.ParameterList([torch.zeros(1)]))
    with pytest.raises(TypeError, match=r"layer '1' \(ParameterList\) of the head has no reset_parameters"):
        fresh_copy(head)


def test_task_norm_keeps_the_statistics_of_every_task_apart():
    case = case_of["vgg16-task_norm=True-own"]
    model = case.make()
    inputs = {"kind": torch.randn(4, 3, 32, 32) + 3, "mean": torch.randn(4, 3, 32, 32) - 3}
    model(inputs)
    first = model.encoder[1].norms
    convolved = {task: model.encoder[0](value) for task, value in inputs.items()}
    for task, value in convolved.items():
        torch.testing.assert_close(first[task].running_mean, 0.1 * value.mean(dim=(0, 2, 3)))
    conv, norm = model.encoder[0], first["mean"]
    assert any(param is conv.weight for param in model.shared_parameters())
    assert any(param is norm.weight for param in model.task_parameters("mean"))
    before = first["mean"].running_mean.clone()
    model({"kind": inputs["kind"], "mean": torch.zeros(4, 3, 32, 32)})
    assert not torch.equal(first["mean"].running_mean, before)
    with pytest.raises(ValueError, match="inputs is one batch for all tasks, expected a mapping from task to inputs"):
        model(inputs["kind"])


def test_rows_of_a_set_may_come_in_any_order_and_be_padded():
    model = case_of["mlp-in_features=7-rows=True"].make()
    rows = torch.randn(2, 5, 7)
    expected = model(rows)
    padded = torch.cat([rows[:, [3, 1, 4, 0, 2]], torch.zeros(2, 4, 7)], dim=1)
    for task, output in model(padded).items():
        torch.testing.assert_close(output, expected[task])


def test_networks_are_built_from_a_configuration():
    options = {"depth": 18, "width": 2, "rates": [1, 2, 3]}
    config = TrainConfig(model="deeplab", model_options=options)
    first, second = build_model(config, MIXED), build_model(config, MIXED)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(ValueError, match=r"model 'deeplab' has no option 'deep'; it has depth, width, dilated"):
        build_model(TrainConfig(model="deeplab", model_options={"deep": 18}), MIXED)


def test_wrong_use_is_named():
    model = small_conv(MIXED, size=8)
    with pytest.raises(KeyError, match=r"no task 'depth'.*kind, seg, mean"):
        model.head("depth")
    with pytest.raises(ValueError, match=r"task 'mean' has kind 'boxes'.*'pixels'"):
        small_conv([replace(MIXED[2], kind="boxes")], size=8)
    with pytest.raises(ValueError, match="heads is empty"):
        HardSharing(nn.Identity(), {})
    for name in ("a.b", "type"):
        with pytest.raises(ValueError, match=rf"heads has a task whose name torch cannot take \(.*{name}.*rename"):
            HardSharing(nn.Identity(), {name: nn.Identity()})
    with pytest.raises(ValueError, match="shared_blocks is 3, expected a whole number from 0 to 2"):
        branch_off([nn.Identity(), nn.Identity()], 3, {})


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("small_conv", {"size": 10}, "size is 10, expected a multiple of 4"),
        ("small_conv", {"width": 0}, "width is 0, expected a whole number of at least 1"),
        ("small_dense", {"stride": 2}, "stride is 2, expected one of 4, 8"),
        ("small_dense", {"hidden": 1.5}, "hidden is 1.5, expected a whole number"),
        ("resnet_split", {"depth": 101}, "depth is 101, expected one of 18, 34, 50"),
        ("resnet_split", {"width": 2, "hidden": -1}, "hidden is -1"),
        ("mtan", {"width": 2, "rates": (1, 0)}, r"rates\[1\] is 0"),
        ("deeplab", {"width": 2, "dropout": 1.0}, "dropout is 1.0, expected a number at least 0 and below 1"),
        ("half_shared", {"width": 2, "shared_blocks": 6}, "shared_blocks is 6, expected a whole number from 0 to 5"),
        ("vgg16", {"width": 2}, "task 'seg' has kind 'pixels', expected 'classes' or 'values' for this network"),
        ("mlp", {"in_features": 3, "depth": 0}, "depth is 0"),
    ],
)
def test_options_that_cannot_be_are_named(model, options, message):
    with pytest.raises(ValueError, match=message):
        MODELS[model](MIXED, **options)
