"""What gradient methods can do besides their formula: heads, mixed precision, micro-batches, penalties, bad steps."""

import pytest
import torch
from method_cases import CASES
from nets import TwoHeads, each_batch, forward
from torch.nn import functional

from mtl_ext import methods
from mtl_ext.methods import EW, GradMethod, NonFiniteError

GRADIENT_METHODS = [name for name in sorted(CASES) if issubclass(methods.METHODS[name], GradMethod)]
LEVELS = ("shared", "features", "both")


def build(name, **options):
    """A method with an option set after construction, so that every row's own arguments stand."""
    method = CASES[name].build(2)
    for option, value in options.items():
        assert hasattr(method, option)
        setattr(method, option, value)
    return method


def level_arguments(net, z, level):
    return {
        **({"shared": net.shared()} if level in ("shared", "both") else {}),
        **({"features": z} if level in ("features", "both") else {}),
    }


def gradients(net):
    return {name: grad for name, grad in net.grads().items() if grad is not None}


def assert_same(result, expected, **tolerance):
    assert result.keys() == expected.keys()
    for name, grad in result.items():
        torch.testing.assert_close(grad, expected[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("level", LEVELS)
def test_heads_can_be_weighed(name, level):
    net, plain = TwoHeads(), TwoHeads()
    for p in net.heads.parameters():
        p.grad = torch.ones_like(p)
    method, reference = (build(name, weight_heads=weigh) for weigh in (True, False))
    z, losses = forward(method, net)
    weights = method.backward(losses, **level_arguments(net, z, level))
    z, losses = forward(reference, plain)
    reference.backward(losses, **level_arguments(plain, z, level))
    for (task, head), weight in zip(net.heads.items(), method.head_weights(weights).float(), strict=True):
        for p, q in zip(head.parameters(), plain.heads[task].parameters(), strict=True):
            torch.testing.assert_close(p.grad, 1 + weight * q.grad)
    for p, q in zip(net.trunk.parameters(), plain.trunk.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("level", LEVELS)
def test_a_scaler_changes_nothing_but_the_scale(name, level):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    net, plain = TwoHeads(), TwoHeads()
    method, reference = build(name), build(name)
    for _ in range(2):
        net.zero_grad()
        z, losses = forward(method, net)
        weights = method.backward(losses, **level_arguments(net, z, level), scaler=scaler)
        plain.zero_grad()
        z, losses = forward(reference, plain)
        expected = reference.backward(losses, **level_arguments(plain, z, level))
    torch.testing.assert_close(weights, expected)
    assert_same({key: grad / 1024 for key, grad in gradients(net).items()}, gradients(plain))


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_a_scaler_skips_the_step_with_infinite_gradients(name):
    x = torch.nn.Parameter(torch.ones(3))
    optimizer, scaler = torch.optim.SGD([x], lr=0.1), torch.amp.GradScaler("cpu", init_scale=2.0)
    method = build(name)

    def losses():
        return None, {"fine": x.sum(), "depth": (x - 1).abs().sqrt().sum()}  # infinite slope at 1

    method.backward(forward(method, losses)[1], shared=[x], scaler=scaler)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(x.detach(), torch.ones(3))
    assert scaler.get_scale() == 1.0


@pytest.mark.parametrize("name", GRADIENT_METHODS)
def test_micro_batches_collected_by_task_equal_the_large_batch(name):
    net, plain = TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)
    method, reference = (build(name, weight_heads=True) for _ in range(2))
    for step in range(2):
        for part, rows in enumerate((slice(0, 5), slice(5, 12))):
            share = (rows.stop - rows.start) / 12
            _, losses = forward(method, lambda rows=rows: (None, net.losses_on(rows)))
            for batch in each_batch(losses):
                batch.update({key: share * loss for key, loss in batch.items()})
            weights = method.backward(losses, shared=net.shared(), combine=part == 1)
        _, losses = forward(reference, lambda: (None, plain.losses_on(slice(0, 12))))
        expected = reference.backward(losses, shared=plain.shared())
        torch.testing.assert_close(weights, expected, msg=f"step {step}")
        assert_same(gradients(net), gradients(plain))


def test_collecting_names_what_it_cannot_do():
    net = TwoHeads()
    z, losses = net()
    with pytest.raises(ValueError, match="combine=False collects over micro-batches, whose features differ"):
        methods.PCGrad().backward(losses, features=z, combine=False)
    with pytest.raises(ValueError, match="EW weighs losses, combine=False would collect gradients"):
        EW().backward(losses, combine=False)
    method = methods.PCGrad()
    method.backward(losses, shared=net.shared(), combine=False)
    with pytest.raises(ValueError, match="shared or losses differ from those of the micro-batches"):
        method.backward(net()[1], shared=net.shared()[:2])


class Ridge:
    """Half the squared norm of a tensor, for the first task."""

    def __init__(self, z):
        self.z = z

    def cotangents(self, losses):
        grad = 0.3 * self.z.detach() * (1.0 if losses.scale is None else losses.scale)
        return [[(self.z, grad)], *([] for _ in losses.keys[1:])]


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("scale", [None, 64.0])
def test_a_penalty_is_part_of_its_tasks_gradient(name, level, scale):
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    net, plain = TwoHeads(), TwoHeads()
    method, reference = build(name), build(name)
    z, losses = forward(method, net)
    penalties = [[Ridge(features)] for features in z] if isinstance(z, list) else [Ridge(z)]
    method.backward(losses, **level_arguments(net, z, level), penalties=penalties, scaler=scaler)
    z, losses = forward(reference, plain)
    terms = [0.15 * features.square().sum() for features in (z if isinstance(z, list) else [z])]
    if issubclass(methods.METHODS[name], GradMethod):
        for batch, term in zip(each_batch(losses), terms, strict=True):
            batch["sum"] = batch["sum"] + term - term.detach()  # methods see the losses' values without penalties
        reference.backward(losses, **level_arguments(plain, z, level))
    else:
        weights = reference.backward(losses, **level_arguments(plain, z, level), retain_graph=True)
        (weights[0].float() * terms[0]).backward()
    assert_same({key: grad / (scale or 1.0) for key, grad in gradients(net).items()}, gradients(plain))


@pytest.mark.parametrize("level", LEVELS)
def test_a_penalty_may_act_behind_the_features(level):
    """Of the task's own layers, those between the features and its tensor are trained by it, too."""
    net, plain = TwoHeads(), TwoHeads()
    grads = []
    for of in (net, plain):
        z = torch.tanh(of.trunk(of.inputs))
        adapted = z + of.adapter(z)
        losses = of.losses_on(slice(None), z)
        losses = [functional.cross_entropy(of.heads["class"](adapted), of.classes), losses["sum"]]
        arguments = {
            **({"shared": list(of.trunk.parameters())} if level != "features" else {}),
            **({"features": z} if level != "shared" else {}),
        }
        if of is net:
            methods.PCGrad().backward(losses, **arguments, penalties=[Ridge(adapted)])
        else:
            methods.PCGrad().backward([losses[0] + 0.15 * adapted.square().sum(), losses[1]], **arguments)
        grads.append(gradients(of))
    assert_same(*grads)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda z: [[], []], "Ridge.cotangents gave 2 rows, expected 3: one per task"),
        (
            lambda z: [[(z, z[:2])], [], []],
            r"gave for losses\['sum'\] a gradient of shape \[2, 5\]",
        ),
        (lambda z: [[], [(z.detach(), z)], []], r"gave for losses\['class'\] a tensor that does not require grad"),
    ],
)
def test_a_penalty_that_gives_something_else_is_named(rows, message):
    net = TwoHeads()
    z, losses = net()
    penalty = Ridge(z)
    penalty.cotangents = lambda losses: rows(z)
    with pytest.raises(ValueError, match=message):
        methods.MGDA().backward(losses | {"again": losses["sum"] * 2}, features=z, penalties=[penalty])


def test_of_several_batches_each_has_its_penalties():
    net = TwoHeads()
    batches = [net() for _ in range(3)]
    features, losses = zip(*batches, strict=True)
    with pytest.raises(ValueError, match="penalties is 1 of them, expected a sequence of 3: MoDo takes one for each"):
        methods.MoDo(2).backward(losses, features=features, penalties=[Ridge(features[0])])


@pytest.mark.parametrize("name", sorted(CASES))
@pytest.mark.parametrize("level", LEVELS)
def test_a_bad_loss_can_be_skipped(name, level):
    net, method = TwoHeads(), build(name, nonfinite="skip")
    z, losses = forward(method, net)
    each_batch(losses)[-1]["class"] *= torch.nan
    weights = method.backward(losses, **level_arguments(net, z, level))
    assert weights.tolist() == [0.0, 0.0]
    assert gradients(net) == {}


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_bad_gradient_can_be_skipped(name, level):
    net = TwoHeads()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    method = build(name, nonfinite="skip")
    z, losses = forward(method, net)
    last = z[-1] if isinstance(z, list) else z
    each_batch(losses)[-1]["class"] += (last - last.detach()).abs().sqrt().sum()  # infinite slope, finite value
    weights = method.backward(losses, **level_arguments(net, z, level))
    assert weights.tolist() == [0.0, 0.0]
    assert all((grad == 1).all() for grad in gradients(net).values())
    z, losses = forward(method, net)
    method.backward(losses, **level_arguments(net, z, level))
    assert not any((p.grad == 1).all() for p in net.trunk.parameters())


def test_the_error_says_what_else_could_be_done():
    with pytest.raises(NonFiniteError, match="nonfinite='skip' leaves such steps out"):
        EW().backward([torch.full((), torch.inf, requires_grad=True) * 1.0])


@pytest.mark.parametrize("name", GRADIENT_METHODS)
@pytest.mark.parametrize("level", ["shared", "features"])
def test_distributed_data_parallel_is_refused_and_explained(name, level, tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = TwoHeads()
        wrapped = torch.nn.parallel.DistributedDataParallel(net)
        z, losses = forward(build(name), wrapped)
        with pytest.raises(RuntimeError, match="one backward pass per task, and DistributedDataParallel averages"):
            build(name).backward(losses, **level_arguments(net, z, level))
        EW().backward(wrapped()[1])
        del wrapped
        plain = TwoHeads()
        build(name).backward(forward(build(name), plain)[1], shared=plain.shared())
    finally:
        torch.distributed.destroy_process_group()
