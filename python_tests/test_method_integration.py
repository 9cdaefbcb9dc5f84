"""Methods in training loops as people write them: compiled models, several optimizers, frozen and unreached parts."""

import pytest
import torch
from method_cases import CASES
from nets import TwoHeads, each_batch, forward
from test_method_options import GRADIENT_METHODS, LEVELS, assert_same, gradients, level_arguments

from mtl_ext import methods

NAMES = sorted(CASES)
# torch.compile looks at the .grad of the features that compiled heads read.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def step(method, net, level, call=None, **options):
    """One backward pass of a net, or of what calls it in its place."""
    z, losses = forward(method, net if call is None else call)
    return method.backward(losses, **level_arguments(net, z, level), **options)


def plain_gradients(name, level):
    net = TwoHeads()
    step(CASES[name].build(2), net, level)
    return gradients(net)


@pytest.fixture(scope="module")
def compiled():
    """A network, itself compiled whole, and compiled as an encoder and heads."""
    # As any method with several backward passes does, which people build before their model's first call.
    methods.PCGrad()
    net = TwoHeads()
    encoder = torch.compile(net.trunk, backend="aot_eager")
    heads = torch.compile(lambda z: net.losses_on(slice(None), z), backend="aot_eager")

    def in_parts():
        z = torch.tanh(encoder(net.inputs))
        return z, heads(z)

    return net, {"whole": torch.compile(net, backend="aot_eager"), "parts": in_parts}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CosReg"])
@pytest.mark.parametrize(("form", "level"), [("whole", "shared"), *(("parts", level) for level in LEVELS)])
def test_compiled_models_give_the_same_gradients(compiled, name, form, level):
    net, calls = compiled
    net.zero_grad()
    step(CASES[name].build(2), net, level, calls[form])
    assert_same(gradients(net), plain_gradients(name, level), rtol=1e-4, atol=1e-6)


def test_what_compiled_models_cannot_do_is_named(compiled):
    net, calls = compiled
    with pytest.raises(ValueError, match="a model compiled as a whole hides its features: use shared= there"):
        step(methods.PCGrad(), net, "features", calls["whole"])
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        step(methods.CosReg(), net, "features", calls["parts"])


@pytest.mark.parametrize("level", LEVELS)
def test_cosreg_takes_a_compiled_encoder_where_only_heads_are_differentiated_twice(level):
    net = TwoHeads()
    backend = "aot_eager" if level == "features" else "eager"
    encoder = torch.compile(net.trunk, backend=backend)

    def call():
        z = torch.tanh(encoder(net.inputs))
        return z, net.losses_on(slice(None), z)

    step(methods.CosReg(), net, level, call)
    assert_same(gradients(net), plain_gradients("CosReg", level), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scaled", [False, True])
def test_trunk_and_heads_can_have_an_optimizer_each(name, scaled):
    """Two optimizers, with one scaler, do what one with two groups does without."""
    results = []
    for several in (False, True):
        net, method = TwoHeads(), CASES[name].build(2)
        groups = [
            {"params": net.shared(), "lr": 0.1, "momentum": 0.9},
            {"params": [*net.heads.parameters(), *method.parameters()], "lr": 0.02},
        ]
        optimizers = [torch.optim.SGD([group]) for group in groups] if several else [torch.optim.SGD(groups)]
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=True) if several and scaled else None
        for _ in range(2):
            for optimizer in optimizers:
                optimizer.zero_grad()
            step(method, net, "shared", scaler=scaler)
            for optimizer in optimizers:
                optimizer.step() if scaler is None else scaler.step(optimizer)
            if scaler is not None:
                scaler.update()
        results.append(dict(net.state_dict()))
    assert_same(results[1], results[0], **({"rtol": 1e-4, "atol": 1e-6} if scaled else {"rtol": 0.0, "atol": 0.0}))


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("level", LEVELS)
def test_losses_may_be_weighed_already(name, level):
    """By numbers and by trained factors, which get the gradient of their own loss."""
    net, plain, factors = TwoHeads(), TwoHeads(), {"sum": 0.3, "class": 4.0}
    logs = {key: torch.zeros((), requires_grad=True) for key in factors}
    method = CASES[name].build(2)
    method.weight_heads = False

    def weighed(net):
        z, losses = net()
        return z, {key: factors[key] * (loss * (-logs[key]).exp() + logs[key]) for key, loss in losses.items()}

    weights = step(method, net, level, lambda: weighed(net))
    z, losses = plain()
    targets = [z] if level == "features" else plain.shared()
    per_task = plain.naive_gradients(targets, {key: factors[key] * loss for key, loss in losses.items()})
    rows = torch.stack([torch.cat([grad.flatten() for grad in task]) for task in per_task])
    torch.testing.assert_close(method.gram, (rows @ rows.T).double(), rtol=1e-5, atol=1e-7)
    for key, loss in losses.items():
        if name != "CosReg":  # whose regulariser trains what the losses are multiplied by
            torch.testing.assert_close(logs[key].grad, factors[key] * (1 - loss.detach()))
            own = torch.autograd.grad(factors[key] * loss, plain.heads[key].weight, retain_graph=True)[0]
            torch.testing.assert_close(net.heads[key].weight.grad, own)
    if CASES[name].weighs and name != "CosReg":
        trunk = plain.naive_gradients(list(plain.trunk.parameters()), losses)
        for p, q, r in zip(net.trunk.parameters(), *trunk, strict=True):
            first, second = (weights * torch.tensor([0.3, 4.0])).float()
            torch.testing.assert_close(p.grad, first * q + second * r, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("level", ["shared", "both"])
def test_a_shared_parameter_that_some_losses_do_not_reach(name, level):
    """The adapter is the second task's alone; a parameter that no loss reaches keeps no gradient."""
    net, plain, method = TwoHeads(), TwoHeads(), CASES[name].build(2)
    idle = torch.nn.Parameter(torch.ones(3))
    z, losses = forward(method, net)
    weights = method.backward(losses, **level_arguments(net, z, level) | {"shared": [idle, *net.shared()]})
    assert idle.grad is None
    assert net.adapter.weight.grad.isfinite().all()
    if CASES[name].weighs and name != "CosReg":
        (own,) = torch.autograd.grad(plain()[1]["class"], plain.adapter.weight)
        torch.testing.assert_close(net.adapter.weight.grad, weights[1].float() * own, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("part", ["trunk.0", "heads.class"])
def test_frozen_parameters_are_left_alone(name, level, part):
    """The others get what they would get if the frozen ones were not among the shared."""
    net, plain = TwoHeads(), TwoHeads()
    net.get_submodule(part).requires_grad_(False)
    step(CASES[name].build(2), net, level)
    frozen = {f"{part}.{key}" for key, _ in net.get_submodule(part).named_parameters()}
    assert gradients(net).keys() == {key for key, _ in net.named_parameters()} - frozen
    left_out = {id(param) for param in plain.get_submodule(part).parameters()}
    shared = [param for param in plain.shared() if id(param) not in left_out]
    plain.shared = lambda: shared
    step(CASES[name].build(2), plain, level)
    assert_same(gradients(net), {key: grad for key, grad in gradients(plain).items() if key not in frozen})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_a_retained_graph_serves_another_pass(name, level):
    net, method = TwoHeads(), CASES[name].build(2)
    z, losses = forward(method, net)
    method.backward(losses, **level_arguments(net, z, level), retain_graph=True)
    net.zero_grad()
    for batch in each_batch(losses):
        sum(batch.values()).backward()
    plain = TwoHeads()
    for _ in each_batch(losses):
        sum(plain()[1].values()).backward()
    assert_same(gradients(net), gradients(plain))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_micro_batches_that_each_combine_accumulate(name, level):
    """The default: every call weighs its own batch and adds to ``.grad``."""
    net, method, reference = TwoHeads(), CASES[name].build(2), CASES[name].build(2)
    total = {}
    for rows in (slice(0, 7), slice(5, 12)):
        for target, who in ((net, method), (TwoHeads(), reference)):

            def batch(target=target, rows=rows):
                z = torch.tanh(target.trunk(target.inputs[rows]))
                return z, target.losses_on(rows, z)

            step(who, target, level, batch)
            if target is not net:
                total = {key: total.get(key, 0) + grad for key, grad in gradients(target).items()}
    assert_same(gradients(net), total)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_autocast_gives_full_precision_gradients(name, level):
    net, method = TwoHeads(), CASES[name].build(2)

    def call():
        with torch.autocast("cpu", torch.bfloat16):
            return net()

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(2):
        weights = step(method, net, level, call, scaler=scaler)
    assert weights.isfinite().all()
    for grad in gradients(net).values():
        assert grad.dtype == torch.float32
        assert grad.isfinite().all()
    assert gradients(net).keys() == dict(net.named_parameters()).keys()
