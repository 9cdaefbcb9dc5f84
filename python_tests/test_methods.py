"""Every method's row, and what all methods have in common."""

import inspect
import re

import numpy as np
import pytest
import torch
from method_cases import CASES, JACOBIAN
from nets import TwoHeads, each_batch, forward

from mtl_ext import methods
from mtl_ext.methods import EW, MGDA, RLW, UW, GradMethod, NonFiniteError, PCGrad

NAMES = sorted(CASES)
GRADIENT_METHODS = [name for name in NAMES if issubclass(methods.METHODS[name], GradMethod)]
SCALE_FREE = [name for name in NAMES if CASES[name].scale_free]
LEVELS = ("shared", "features", "both")
COMMON_OPTIONS = ("num_tasks", "reduction", "weight_heads", "generator", "seed", "nonfinite")


def combined(method, jacobian, values=None):
    """The combined gradient for given per-task gradients and loss values, and the weights."""
    x = torch.zeros(jacobian.shape[1], dtype=jacobian.dtype, requires_grad=True)
    values = torch.arange(1.0, len(jacobian) + 1, dtype=jacobian.dtype) if values is None else values
    _, losses = forward(method, lambda: (None, jacobian @ x + values))
    weights = method.backward(losses, shared=[x])
    return x.grad, weights


def own_inputs(net, as_list):
    """Features and losses of two tasks with a batch each, by name or as lists."""
    features, losses = net.own_inputs()
    return (list(features.values()), list(losses.values())) if as_list else (features, losses)


def level_arguments(net, z, level):
    return {
        **({"shared": net.shared()} if level in ("shared", "both") else {}),
        **({"features": z} if level in ("features", "both") else {}),
    }


def test_every_method_has_a_row():
    assert sorted(methods.METHODS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_value(name):
    case = CASES[name]
    grad, weights = combined(case.build(2), JACOBIAN)
    np.testing.assert_allclose(grad.numpy(), case.value(), rtol=1e-4, atol=case.absolute, err_msg=case.source)
    if case.weighs:
        np.testing.assert_allclose((weights @ JACOBIAN).numpy(), grad.numpy(), rtol=1e-6, atol=1e-12)
    assert weights.dtype == torch.float64
    assert not weights.requires_grad


@pytest.mark.parametrize("name", SCALE_FREE)
@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e6, 1e12])
def test_scale_does_not_matter(name, scale):
    case = CASES[name]
    jacobian = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grad, _ = combined(case.build(3), jacobian)
    scaled, _ = combined(case.build(3), jacobian * scale)
    torch.testing.assert_close(scaled / scale**case.degree, grad)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_tasks", [1, 2, 64])
def test_degenerate_gradients_have_a_finite_answer(name, num_tasks):
    draw = torch.Generator().manual_seed(2)
    full = torch.randn(num_tasks, 80, dtype=torch.float64, generator=draw)
    with_zero = full.clone()
    with_zero[0] = 0
    for jacobian in (full, torch.zeros_like(full), full[:1].expand(num_tasks, 80), with_zero, full[:, :1]):
        grad, weights = combined(CASES[name].build(num_tasks), jacobian)
        assert grad.isfinite().all()
        assert weights.isfinite().all()
    if num_tasks == 1 and CASES[name].single_weight is not None:
        torch.testing.assert_close(combined(CASES[name].build(1), full)[0], CASES[name].single_weight * full[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_state_of_a_used_instance_continues_bit_for_bit(name, level):
    def step(method, net):
        z, losses = forward(method, net)
        method.backward(losses, **level_arguments(net, z, level))
        return net.grads()

    used, net = CASES[name].build(2), TwoHeads()
    for _ in range(3):
        step(used, net)
    fresh = CASES[name].build(2)
    fresh.load_state_dict(used.state_dict())
    net.zero_grad()
    expected = step(used, net)
    net.zero_grad()
    result = step(fresh, net)
    assert all(torch.equal(result[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", NAMES)
def test_bad_options_are_named(name):
    parameters = inspect.signature(methods.METHODS[name]).parameters
    required = {"num_tasks": 2} if "num_tasks" in parameters else {}
    common = {"num_tasks": 0, "reduction": "max", "nonfinite": "hope"}
    tried = [({**required, option: value}, f"{option} is {value!r}") for option, value in common.items()]
    tried = [(options, message) for options, message in tried if options.keys() <= parameters.keys()]
    for options, message in (*tried, *CASES[name].bad_options):
        with pytest.raises(ValueError, match=message):
            methods.METHODS[name](**options)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_of_a_methods_own_has_a_bad_value_that_is_named(name):
    own = [p for p in inspect.signature(methods.METHODS[name]).parameters.values() if p.name not in COMMON_OPTIONS]
    checked = {option for options, _ in CASES[name].bad_options for option in options}
    assert [p.name for p in own if p.annotation is not bool and p.name not in checked] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_documented(name):
    arguments = inspect.getdoc(methods.METHODS[name]).partition("\nArgs:\n")[2].partition("\n\n")[0]
    documented = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    assert documented == list(inspect.signature(methods.METHODS[name]).parameters)


@pytest.mark.parametrize("level", LEVELS)
def test_equal_weighting_is_the_sum_bit_for_bit(level):
    net, reference = TwoHeads(), TwoHeads()
    z, losses = net()
    EW().backward(losses, **level_arguments(net, z, level))
    sum(reference()[1].values()).backward()
    assert all(torch.equal(grad, reference.grads()[key]) for key, grad in net.grads().items())


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("level", LEVELS)
def test_heads_get_their_own_loss_and_the_trunk_the_combination(name, dtype, level):
    net, reference, method = TwoHeads(dtype=dtype), TwoHeads(dtype=dtype), CASES[name].build(2)
    z, losses = forward(method, net)
    weights = method.backward(losses, **level_arguments(net, z, level))
    factors = (method.head_weights(weights) if method.weight_heads else torch.ones_like(weights)).to(dtype)
    _, plain = reference()
    per_task = reference.naive_gradients(list(reference.trunk.parameters()), plain)
    sum(factor * loss for factor, loss in zip(factors, plain.values(), strict=True)).backward()
    tolerance = {torch.bfloat16: 0.03, torch.float16: 0.004, torch.float32: 1e-5, torch.float64: 1e-10}[dtype]
    for p, q in zip(net.heads.parameters(), reference.heads.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=tolerance, atol=tolerance)
    for i, p in enumerate(net.trunk.parameters() if CASES[name].weighs else ()):
        expected = sum(w * task[i] for w, task in zip(weights.to(dtype), per_task, strict=True))
        torch.testing.assert_close(p.grad, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_gram_of_the_last_call_is_kept(name):
    net, method = TwoHeads(dtype=torch.float64), CASES[name].build(2)
    _, losses = forward(method, net)
    rows = [torch.cat([g.flatten() for g in task]) for task in net.naive_gradients(net.shared(), net()[1])]
    method.backward(losses, shared=net.shared())
    torch.testing.assert_close(method.gram, torch.stack([torch.stack([a @ b for a in rows]) for b in rows]))


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_levels_must_be_named(name):
    method = CASES[name].build(2)
    with pytest.raises(ValueError, match=r"backward needs shared=.* or features="):
        method.backward(forward(method, TwoHeads())[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_list", [False, True])
def test_tasks_with_batches_of_their_own_train(name, as_list):
    net = TwoHeads()
    method = CASES[name].build(2)
    optimizer = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.05)
    history = []
    for _ in range(30):
        features, losses = forward(method, lambda: own_inputs(net, as_list))
        optimizer.zero_grad()
        gradients = method.level == "gradient"
        by_level = {"shared": list(net.trunk.parameters())} if gradients else {"features": features}
        method.backward(losses, **by_level)
        optimizer.step()
        history.append(sum(net.own_inputs()[1].values()).item())
    assert history[-1] < history[0] - 0.05


@pytest.mark.parametrize("name", [name for name in GRADIENT_METHODS if methods.METHODS[name].compares])
@pytest.mark.parametrize("as_list", [False, True])
def test_feature_products_between_own_inputs_are_refused(name, as_list):
    net, method = TwoHeads(), CASES[name].build(2)
    features, losses = forward(method, lambda: own_inputs(net, as_list))
    with pytest.raises(ValueError, match=r"losses\[.*\] reads features of its own input.*shared="):
        method.backward(losses, features=features)
    assert all(p.grad is None for p in net.trunk.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nonfinite_losses_are_named_and_nothing_is_written(name, value):
    net, method = TwoHeads(), CASES[name].build(2)
    z, losses = forward(method, net)
    each_batch(losses)[-1]["class"] *= value
    with pytest.raises(NonFiniteError, match=r"losses\['class'\] is"):
        method.backward(losses, shared=net.shared(), features=z)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_nonfinite_gradients_are_named_or_let_through(name):
    method, x = CASES[name].build(2), torch.ones(3, requires_grad=True)

    def losses():
        return None, {"fine": x.sum(), "depth": (x - 1).abs().sqrt().sum()}  # infinite slope at 1

    with pytest.raises(NonFiniteError, match=r"the gradient of losses\['depth'\] has squared norm"):
        method.backward(forward(method, losses)[1], shared=[x])
    assert x.grad is None
    method = CASES[name].build(2)
    method.nonfinite = "propagate"
    method.backward(forward(method, losses)[1], shared=[x])
    assert not x.grad.isfinite().all()


def test_uncertainty_weighting_trains_its_variances():
    losses = torch.tensor([2.0, 0.5], requires_grad=True)
    for form, factor in ((1, 0.5), (2, 1.0)):
        method = UW(2, form=form)
        weights = method.backward(losses * 1.0)
        torch.testing.assert_close(weights, torch.full((2,), factor, dtype=torch.float64))
        torch.testing.assert_close(method.log_variances.grad, 0.5 - factor * losses.detach())
    with pytest.raises(ValueError, match="losses has 2 tasks, expected num_tasks = 3"):
        UW(3).backward(losses * 1.0)


def test_random_methods_draw_from_their_own_generator():
    state = torch.get_rng_state()
    for build in (RLW, PCGrad):
        a, b = build(seed=5), build(generator=torch.Generator().manual_seed(5))
        jacobian = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
        assert torch.equal(combined(a, jacobian)[0], combined(b, jacobian)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_pcgrad_draws_orders_as_documented():
    jacobian = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    draw = torch.Generator().manual_seed(11)
    total = np.zeros(4)
    for i in range(7):
        running = jacobian[i].numpy().copy()
        for j in torch.randperm(7, generator=draw).tolist():
            other = jacobian[j].numpy()
            if j != i and running @ other < 0:
                running = running - running @ other / (other @ other) * other
        total += running
    np.testing.assert_allclose(combined(PCGrad(seed=11), jacobian)[0].numpy(), total, rtol=1e-10)
    np.testing.assert_allclose(combined(PCGrad(seed=11, reduction="mean"), jacobian)[0].numpy(), total / 7, rtol=1e-10)


@pytest.mark.parametrize("normalization", ["none", "l2", "loss", "loss+"])
def test_mgda_is_the_minimum_norm_of_the_normalised_gradients(normalization):
    optimize = pytest.importorskip("scipy.optimize")
    for seed in range(20):
        jacobian = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        values = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1
        _, weights = combined(MGDA(normalization=normalization), jacobian, values)
        scale = {"none": 1.0, "l2": jacobian.norm(dim=1), "loss": values, "loss+": values * jacobian.norm(dim=1)}
        rows = (jacobian.T / scale[normalization]).numpy()
        solution, _ = optimize.nnls(np.vstack([rows, np.ones(5)]), np.r_[np.zeros(6), 1.0])
        np.testing.assert_allclose(weights.numpy(), solution / solution.sum(), atol=1e-7)
