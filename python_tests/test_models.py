"""Architectures: what is shared, what is not, and the shapes between."""

from dataclasses import replace

import pytest
import torch
from small_data import SIZE, TASKS

from mtl_ext.models import HardSharing, small_conv


def test_outputs_have_the_shapes_that_the_kinds_promise():
    model = small_conv(TASKS, size=SIZE)
    inputs = torch.rand(5, 1, SIZE, SIZE)
    features, outputs = model.features(inputs), model(inputs)
    assert features.shape == (5, 16, 2, 2)
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "brightest": (5, 4),
        "bright": (5, 2, SIZE, SIZE),
        "mean": (5, 1),
    }
    for task, output in model.outputs(features).items():
        assert torch.equal(output, outputs[task])
        assert torch.equal(output, model.head(task)(features))


def test_every_parameter_is_shared_or_belongs_to_one_task():
    model = small_conv(TASKS, size=SIZE)
    parts = [model.shared_parameters(), *(model.task_parameters(task) for task in model.tasks)]
    ids = [id(param) for part in parts for param in part]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(param) for param in model.parameters()}
    losses = {task: output.square().mean() for task, output in model(torch.rand(2, 1, SIZE, SIZE)).items()}
    losses["mean"].backward()
    assert all(param.grad is not None for param in [*model.shared_parameters(), *model.task_parameters("mean")])
    assert all(param.grad is None for param in model.task_parameters("bright"))


def test_a_single_task_network_is_the_same_class_with_one_head():
    model = small_conv(TASKS[1:2], size=SIZE)
    assert isinstance(model, HardSharing)
    assert model.tasks == ("bright",)


def test_wrong_use_is_named():
    model = small_conv(TASKS, size=SIZE)
    with pytest.raises(KeyError, match=r"no task 'depth'.*brightest, bright, mean"):
        model.head("depth")
    with pytest.raises(ValueError, match="size is 10"):
        small_conv(TASKS, size=10)
    with pytest.raises(ValueError, match=r"task 'mean' has kind 'boxes'.*'pixels'"):
        small_conv([replace(TASKS[2], kind="boxes")], size=SIZE)
    with pytest.raises(ValueError, match="heads is empty"):
        HardSharing(torch.nn.Identity(), {})
