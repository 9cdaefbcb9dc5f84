"""Both ends of the data flow: what reaches `.grad` against a naive loop."""

import pytest
import torch
from nets import TwoHeads

from mtl_ext.gradients import FeatureGradients, ParameterGradients
from mtl_ext.heads import accumulators_before
from mtl_ext.losses import TaskLosses

WEIGHTS = torch.tensor([0.25, 3.0], dtype=torch.float64)


def assert_grads(net, expected, **tolerance):
    for name, grad in net.grads().items():
        torch.testing.assert_close(grad, expected[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def expected_grads(net, *, parameter_level=True):
    """The naive loop: shared parameters get the weighted combination, heads the gradient of their own loss."""
    _, losses = net()
    shared = net.shared()
    per_task = net.naive_gradients(shared, losses)
    combined = {
        id(p): sum(w * g[i] for w, g in zip(WEIGHTS.float(), per_task, strict=True)) for i, p in enumerate(shared)
    }
    heads = list(net.heads.parameters())
    plain = torch.autograd.grad(sum(losses.values()), heads, retain_graph=True)
    combined |= {id(p): g for p, g in zip(heads, plain, strict=True)}
    if not parameter_level:  # the adapter lies behind the features: it belongs to the second head
        combined[id(net.adapter.weight)] = per_task[1][-1]
    return {name: combined[id(p)] for name, p in net.named_parameters()}


@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_parameter_level_equals_the_naive_loop(with_features, steps):
    net = TwoHeads()
    expected = {name: steps * grad for name, grad in expected_grads(net).items()}
    for _ in range(steps):
        z, losses = net()
        with ParameterGradients(TaskLosses(losses), net.shared(), z if with_features else None) as gradients:
            gradients.combine(WEIGHTS)
    assert_grads(net, expected)


@pytest.mark.parametrize("steps", [1, 2])
def test_feature_level_equals_the_naive_loop(steps):
    net = TwoHeads()
    expected = {name: steps * grad for name, grad in expected_grads(net, parameter_level=False).items()}
    for _ in range(steps):
        z, losses = net()
        with FeatureGradients(TaskLosses(losses), z) as gradients:
            gradients.combine(WEIGHTS)
        assert not z.retains_grad
    assert_grads(net, expected)


def test_features_keep_their_grad_where_the_user_asked_for_it():
    net = TwoHeads()
    z, losses = net()
    z.retain_grad()
    gradients = FeatureGradients(TaskLosses(losses), z)
    expected = 0.25 * gradients.tensors[0] + 3.0 * gradients.tensors[1]
    gradients.combine(WEIGHTS)
    torch.testing.assert_close(z.grad, expected)


def test_leaf_features_receive_the_combination():
    net = TwoHeads()
    z = torch.tanh(net.trunk(net.inputs)).detach().requires_grad_()
    losses = [net.heads["sum"](z).square().mean(), net.heads["class"](z).square().mean()]
    expected = [torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses]
    for _ in range(2):
        FeatureGradients(TaskLosses(losses), z, retain_graph=True).combine(WEIGHTS)
    torch.testing.assert_close(z.grad, 2 * (0.25 * expected[0] + 3 * expected[1]))


def test_several_features_that_share_a_gradient():
    """The gradients of z1 + z2 are one tensor: combining must not overwrite it while it is still read."""
    a, b = (torch.randn(4, requires_grad=True) for _ in range(2))
    z1, z2 = a * 2, b * 3
    losses = [(z1 + z2).square().sum(), (z1 - z2).square().sum()]
    roots = [torch.autograd.grad(loss, [a, b], retain_graph=True) for loss in losses]
    FeatureGradients(TaskLosses(losses), [z1, z2]).combine(WEIGHTS)
    torch.testing.assert_close(a.grad, 0.25 * roots[0][0] + 3 * roots[1][0])
    torch.testing.assert_close(b.grad, 0.25 * roots[0][1] + 3 * roots[1][1])


def test_unused_parameters_keep_their_grad():
    net = TwoHeads()
    unused = torch.nn.Parameter(torch.ones(3))
    _, losses = net()
    with ParameterGradients(TaskLosses(losses), [*net.shared(), unused]) as gradients:
        gradients.combine(WEIGHTS)
    assert unused.grad is None


def test_frozen_and_repeated_parameters():
    net = TwoHeads()
    net.trunk[0].weight.requires_grad_(False)
    _, losses = net()
    gradients = ParameterGradients(TaskLosses(losses), [*net.shared(), *net.shared()])
    assert len(gradients.targets) == len(net.shared()) - 1


def test_grad_is_given_back_when_a_task_fails():
    net = TwoHeads()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    _, losses = net()
    losses["class"] = net.heads["class"].weight.sum()  # reaches no shared parameter
    with pytest.raises(ValueError, match=r"losses\['class'\] reaches none of the shared parameters"):
        ParameterGradients(TaskLosses(losses), net.shared())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in net.shared())


def test_allow_unused_accepts_a_task_that_reaches_nothing():
    net = TwoHeads()
    _, losses = net()
    losses["class"] = net.heads["class"].weight.sum()
    with ParameterGradients(TaskLosses(losses), net.shared(), allow_unused=True) as gradients:
        gradients.combine(WEIGHTS)
    assert all(grad.numel() == 0 for grad in gradients.tensors[len(net.shared()) :])


def test_retain_graph_allows_another_pass():
    for make in (
        lambda net, z, losses: ParameterGradients(losses, net.shared(), retain_graph=True),
        lambda net, z, losses: FeatureGradients(losses, z, retain_graph=True),
    ):
        net = TwoHeads()
        z, losses = net()
        for _ in range(2):
            with make(net, z, TaskLosses(losses)) as gradients:
                gradients.combine(WEIGHTS)
        sum(losses.values()).backward()


def test_heads_are_found_by_their_graph_and_their_hooks_run():
    net = TwoHeads()
    z, losses = net()
    found = {id(node.variable) for node in accumulators_before([losses["class"]], [z])}
    assert found == {id(p) for p in (*net.heads["class"].parameters(), net.adapter.weight)}
    called = []
    net.heads["class"].weight.register_post_accumulate_grad_hook(lambda p: called.append(p.grad is not None))
    FeatureGradients(TaskLosses(losses), z)
    assert called == [True]


def test_gradients_are_collected_without_a_copy():
    """The combination reuses the first task's memory: `.grad` is one of the collected tensors."""
    net = TwoHeads()
    _, losses = net()
    with ParameterGradients(TaskLosses(losses), net.shared()) as gradients:
        gradients.combine(WEIGHTS)
    assert net.trunk[0].weight.grad.data_ptr() == gradients.tensors[0].data_ptr()


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([], "losses is empty"),
        (torch.ones(2, 2, requires_grad=True), r"losses has shape \[2, 2\], expected \[K\]"),
        ([torch.ones(2, requires_grad=True)], r"losses\[0\] has shape \[2\], expected a scalar"),
        ({"depth": torch.tensor(1.0)}, r"losses\['depth'\] does not require grad"),
    ],
)
def test_wrong_losses_are_named(losses, message):
    with pytest.raises(ValueError, match=message):
        TaskLosses(losses)


def test_wrong_targets_are_named():
    net = TwoHeads()
    z, losses = net()
    losses = TaskLosses(losses)
    for call, message in (
        (lambda: ParameterGradients(losses, []), "shared holds nothing that requires grad"),
        (lambda: ParameterGradients(losses, z), "shared is a tensor, expected the shared parameters"),
        (lambda: ParameterGradients(losses, [z]), r"shared\[0\] is not a leaf"),
        (lambda: FeatureGradients(losses, []), "features is empty"),
        (lambda: FeatureGradients(losses, z.detach()), r"features\[0\] does not require grad"),
        (lambda: FeatureGradients(losses, {"sum": z}), r"features has the keys \['sum'\], expected those of losses"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
