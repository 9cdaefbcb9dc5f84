"""DGR: its norms and their gradient, both ways to differentiate, and how it joins methods."""

import copy
import io

import pytest
import torch
from dgr_cases import HEADS, head_case
from dgr_cases import LOSSES as LOSS_NAMES
from method_cases import CASES
from nets import TwoHeads
from torch import nn
from torch.nn import functional

from mtl_ext import methods
from mtl_ext.data import Task
from mtl_ext.data.losses import masked_l1, pixel_cross_entropy
from mtl_ext.losses import TaskLosses
from mtl_ext.models import mtan
from mtl_ext.penalties import DGR

CE = functional.cross_entropy
DOUBLE = torch.float64


def softmax_case():
    torch.manual_seed(0)
    head = nn.Linear(4, 3).to(DOUBLE)
    return head, torch.randn(5, 4, dtype=DOUBLE, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])


def gradient(head, loss, z, target, **options):
    """What DGR adds at z, and the norms [D]."""
    dgr = DGR([head], [loss], **{"strength": 1.0, **options})
    ((_, grad),) = dgr(z, [target]).cotangents(TaskLosses([z.sum()]))[0]
    return grad, dgr.norms[0]


def softmax_norms(weight, bias, z, target, per_sample):
    """|grad L| of a softmax head, written out: the gradient of a sample's logits is p - y."""
    rows = []
    for x, y in zip(z, target, strict=True):
        logits = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        total = sum(logit.exp() for logit in logits)
        deltas = [logit.exp() / total - (1.0 if c == y else 0.0) for c, logit in enumerate(logits)]
        rows.append([entry for delta in deltas for entry in (*(delta * v for v in x), delta)])
    if per_sample:
        return sum(sum(entry**2 for entry in row).sqrt() for row in rows) / len(rows)
    return sum((sum(column) / len(rows)) ** 2 for column in zip(*rows, strict=True)).sqrt()


@pytest.mark.parametrize("reduction", ["batch", "sample"])
@pytest.mark.parametrize("dummy_reduction", ["mean", "sum"])
def test_a_softmax_head_agrees_with_the_double_loop(reduction, dummy_reduction):
    head, z, target = softmax_case()
    options = {"reduction": reduction, "dummy_reduction": dummy_reduction, "strength": 0.3, "dummies": 2}
    grad, norms = gradient(head, CE, z, target, **options)
    dummies = DGR([head], [CE], **options).dummies["0"].copies
    expected = [softmax_norms(d.weight, d.bias, z, target, reduction == "sample") for d in dummies]
    torch.testing.assert_close(norms, torch.stack(expected).detach())
    total = sum(expected) / (2 if dummy_reduction == "mean" else 1)
    torch.testing.assert_close(grad, torch.autograd.grad(0.3 * total, z)[0])


class Tokens(nn.Module):
    """Linear layers that read rows of one sample, several rows of it, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.each = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(4)

    def forward(self, z):
        rows = torch.tanh(self.each(z)).mean(dim=1)
        return self.last(self.norm(self.twice(torch.tanh(self.twice(rows)))))


def case_of(name, loss="cross_entropy", dtype=DOUBLE):
    """A head, its loss, features and a target."""
    if name == "tokens":
        torch.manual_seed(1)
        return Tokens().to(dtype), CE, torch.randn(3, 5, 4, dtype=dtype, requires_grad=True), torch.tensor([0, 2, 1])
    return head_case(name, loss, dtype)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("loss", LOSS_NAMES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (DOUBLE, 1e-6)])
def test_the_finite_difference_keeps_to_its_bound(head, loss, dtype, bound):
    case = case_of(head, loss, dtype)
    exact, norms = gradient(*case)
    near, same_norms = gradient(*case, mode="finite_difference")
    torch.testing.assert_close(norms, same_norms)
    assert (near - exact).norm() < bound * exact.norm()


@pytest.mark.parametrize("head", ["mlp", "conv", "deeplab", "tokens"])
def test_the_gradient_is_that_of_single_dummies(head):
    """An oracle without vmap: one dummy after the other, by create_graph."""
    head, loss, z, target = case_of(head)
    grad, norms = gradient(head, loss, z, target, seed=3)
    total = 0.0
    for dummy, norm in zip(DGR([head], [loss], strength=1.0, seed=3).dummies["0"].copies, norms, strict=True):
        dummy.requires_grad_(True)
        grads = torch.autograd.grad(loss(dummy(z), target), list(dummy.parameters()), create_graph=True)
        mine = torch.cat([g.flatten() for g in grads]).norm()
        torch.testing.assert_close(mine, norm)
        total = total + mine / 3
    torch.testing.assert_close(grad, torch.autograd.grad(total, z)[0])


@pytest.mark.parametrize("name", ["mlp", "conv", "tokens"])
def test_norms_of_samples_are_those_of_batches_of_one(name):
    head, loss, z, target = case_of(name)
    grad, norms = gradient(head, loss, z, target, reduction="sample")
    singles = [gradient(head, loss, x[None].detach().requires_grad_(), y[None]) for x, y in zip(z, target, strict=True)]
    torch.testing.assert_close(norms, torch.stack([norm for _, norm in singles]).mean(0))
    torch.testing.assert_close(grad, torch.cat([single for single, _ in singles]) / len(z))


def test_a_gradient_of_zero_has_slope_zero():
    z = torch.zeros(4, 3, requires_grad=True)
    for mode in ("exact", "finite_difference"):
        grad, norms = gradient(nn.Linear(3, 2, bias=False), functional.mse_loss, z, torch.zeros(4, 2), mode=mode)
        assert norms.tolist() == [0.0] * 3
        assert not grad.any()


class KinkedHead(nn.Module):
    """A linear layer and then a function with kinks."""

    def __init__(self, kink):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.kink = kink

    def forward(self, z):
        return self.kink(self.linear(z))


@pytest.mark.parametrize(
    ("kink", "name"),
    [
        (nn.ELU(), "elu"),
        (lambda x: x.sort(dim=1).values, "sort"),
        (lambda x: torch.where(x > 0, x, 0.5 * x), "gt, which is not differentiable"),
        (lambda x: x * x.detach(), "detach, which is not differentiable"),
        (lambda x: x * float(x.detach().sum()), "detach, which is not differentiable"),
        (lambda x: functional.dropout(x, 0.5), "dropout, which computes bernoulli_"),
        (lambda x: x.clamp(min=x.mean()), "clamp with bounds that are not constant"),
    ],
)
def test_a_pattern_that_cannot_be_frozen_is_refused(kink, name):
    z, target = torch.randn(5, 4, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    with pytest.raises(ValueError, match=rf"pattern of a head or its loss cannot be frozen.* there is {name}"):
        gradient(KinkedHead(kink), CE, z, target, mode="finite_difference")


def square_loss(output, target):
    return (output - target).square().mean()


@pytest.mark.parametrize(
    "kink",
    [
        nn.LeakyReLU(0.1, inplace=True),
        nn.ReLU6(),
        nn.Hardtanh(-0.2, 0.3),
        nn.Threshold(0.1, 0.0),
        nn.MaxPool1d(2, 1),
        nn.AdaptiveMaxPool1d(2),
        torch.relu,
        abs,
        lambda x: x.clamp(min=0.1, max=0.5) + x.abs(),
        lambda x: functional.max_pool1d(x, 2, return_indices=True)[0],
    ],
)
def test_kinked_functions_keep_their_pattern(kink):
    torch.manual_seed(0)
    head, z = KinkedHead(kink).to(DOUBLE), torch.randn(9, 4, dtype=DOUBLE, requires_grad=True)
    exact, _ = gradient(head, square_loss, z, 0.3)
    near, _ = gradient(head, square_loss, z, 0.3, mode="finite_difference")
    assert (near - exact).norm() < 1e-7 * exact.norm()


def test_a_layer_without_second_derivative_takes_the_finite_difference():
    torch.manual_seed(0)
    z = torch.randn(9, 4, dtype=DOUBLE, requires_grad=True)
    head, same = KinkedHead(nn.Hardsigmoid()).to(DOUBLE), KinkedHead(lambda x: (x / 6 + 0.5).clamp(0, 1)).to(DOUBLE)
    with pytest.raises(RuntimeError, match="has no second derivative: take mode='finite_difference'"):
        gradient(head, square_loss, z, 0.3)
    near, _ = gradient(head, square_loss, z, 0.3, mode="finite_difference")
    exact, _ = gradient(same, square_loss, z, 0.3)
    assert (near - exact).norm() < 1e-7 * exact.norm()


class Pair(nn.Module):
    """Reads two tensors."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, features):
        a, b = features
        return self.first(a) + torch.tanh(self.second(b))


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sample"}, {"mode": "finite_difference"}], ids=lambda options: str(options)
)
def test_a_head_may_read_several_tensors(options):
    torch.manual_seed(0)
    head, y = Pair().to(DOUBLE), torch.tensor([0, 2, 1])
    features = [torch.randn(3, size, dtype=DOUBLE, requires_grad=True) for size in (4, 2)]
    dgr = DGR([head], [CE], strength=1.0, dummies=1, **options)
    pairs = dgr(features, [y]).cotangents(TaskLosses([features[0].sum()]))[0]
    assert all(tensor is feature for (tensor, _), feature in zip(pairs, features, strict=True))
    (dummy,) = dgr.dummies["0"].copies
    params = list(dummy.requires_grad_(True).parameters())
    total = 0.0
    parts = [slice(None)] if "reduction" not in options else [slice(i, i + 1) for i in range(3)]
    for rows in parts:
        loss = CE(dummy([feature[rows] for feature in features]), y[rows])
        grads = torch.autograd.grad(loss, params, create_graph=True)
        total = total + torch.cat([g.flatten() for g in grads]).norm() / len(parts)
    for (_, grad), expected in zip(pairs, torch.autograd.grad(total, features), strict=True):
        torch.testing.assert_close(grad, expected)


def test_tasks_may_have_inputs_of_their_own():
    net, plain = Net(dtype=DOUBLE), Net(dtype=DOUBLE)
    dgr = net.dgr()
    targets = {"sum": net.sums[:7], "class": net.classes[7:]}
    features, losses = net.own_inputs()
    methods.EW().backward(losses, features=features, penalties=[dgr(features, targets)])
    features, losses = plain.own_inputs()
    terms = {task: penalised(dgr, features[task], {task: losses[task]}, targets)[task] for task in losses}
    sum(terms.values()).backward()
    torch.testing.assert_close(net.grads(), plain.grads())


def test_in_float64_it_is_differenced_as_it_is():
    torch.manual_seed(0)
    head = KinkedHead(nn.ELU()).to(DOUBLE)
    z, target = torch.randn(5, 4, dtype=DOUBLE, requires_grad=True), torch.tensor([0, 2, 1, 1, 0])
    exact, _ = gradient(head, CE, z, target)
    near, _ = gradient(head, CE, z, target, mode="finite_difference")
    assert 0 < (near - exact).norm() < 1e-5 * exact.norm()


LOSSES = {"sum": functional.mse_loss, "class": CE}


class Net(TwoHeads):
    """Both heads on the same features."""

    def targets(self, rows=slice(None)):
        return {"sum": self.sums[rows], "class": self.classes[rows]}

    def dgr(self, **options):
        return DGR(dict(self.heads), LOSSES, **{"strength": 0.2, **options})

    def step(self, rows=slice(None)):
        z = torch.tanh(self.trunk(self.inputs[rows]))
        z = z + self.adapter(z)
        targets = self.targets(rows)
        return z, {task: loss(self.heads[task](z), targets[task]) for task, loss in LOSSES.items()}


def penalised(dgr, z, losses, targets):
    """The losses with DGR's terms in them, by create_graph, their values as before."""
    out = {}
    for task, loss in losses.items():
        norms = []
        for dummy in copy.deepcopy(dgr.dummies[task]).copies:
            params = list(dummy.requires_grad_(True).parameters())
            grads = torch.autograd.grad(dgr.losses[task](dummy(z), targets[task]), params, create_graph=True)
            norms.append(torch.cat([g.flatten() for g in grads]).norm())
        term = dgr.strength * torch.stack(norms).mean()
        out[task] = loss + term - term.detach()
    return out


def arguments(net, z, level):
    return {"shared": {"shared": net.shared()}, "features": {"features": z}}[level]


ONE_BATCH = [name for name in sorted(CASES) if methods.METHODS[name].batches == 1 and name != "CosReg"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("level", ["shared", "features"])
@pytest.mark.parametrize("name", ONE_BATCH)
def test_it_composes_with_every_method(name, level):
    net, plain = Net(dtype=DOUBLE), Net(dtype=DOUBLE)
    dgr = net.dgr()
    before = {key: value.clone() for key, value in dgr.state_dict().items()}
    method, reference = CASES[name].build(2), CASES[name].build(2)
    z, losses = net.step()
    weights = method.backward(losses, **arguments(net, z, level), penalties=[dgr(z, net.targets())])
    z, losses = plain.step()
    terms = penalised(dgr, z, losses, plain.targets())
    expected = reference.backward(terms, **arguments(plain, z, level))
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(net.grads(), plain.grads())
    assert all(torch.equal(value, before[key]) for key, value in dgr.state_dict().items())
    assert all(param.grad is None for param in dgr.parameters())


def test_real_heads_get_no_gradient_from_it():
    grads = []
    for strength in (0.0, 10.0):
        net = Net()
        z, losses = net.step()
        methods.EW().backward(losses, penalties=[net.dgr(strength=strength)(z, net.targets())])
        grads.append(net.grads())
    first, second = grads
    for name in first:
        assert torch.equal(first[name], second[name]) == name.startswith("heads")


def test_training_with_it_shortens_the_dummies_gradients():
    norms = []
    for strength in (0.0, 1.0):
        net = Net()
        dgr, optimizer = net.dgr(strength=strength), torch.optim.SGD(net.parameters(), lr=0.05)
        for _ in range(40):
            optimizer.zero_grad()
            z, losses = net.step()
            methods.CAGrad().backward(losses, features=z, penalties=[dgr(z, net.targets())])
            optimizer.step()
        norms.append({task: float(values.mean()) for task, values in dgr.norms.items()})
    assert all(norms[1][task] < 0.8 * norms[0][task] for task in LOSSES)


def test_of_several_batches_each_has_its_own():
    net, method = Net(), methods.MoDo(2)
    rows = [slice(begin, begin + 4) for begin in (0, 4, 8)]
    features, losses = zip(*(net.step(part) for part in rows), strict=True)
    dgr = net.dgr()
    penalties = [[dgr(z, net.targets(part))] for z, part in zip(features, rows, strict=True)]
    method.backward(losses, shared=net.shared(), penalties=penalties)
    assert all(grad.isfinite().all() for grad in net.grads().values())


def test_micro_batches_add_up():
    """Each with its share of strength; the norms are those of the micro-batches."""
    net, plain = Net(dtype=DOUBLE), Net(dtype=DOUBLE)
    dgr, method = net.dgr(), methods.PCGrad()
    for rows, combine in ((slice(6), False), (slice(6, 12), True)):
        z, losses = net.step(rows)
        halves = {task: loss / 2 for task, loss in losses.items()}
        penalty = dgr(z, net.targets(rows), factor=0.5)
        method.backward(halves, shared=net.shared(), penalties=[penalty], combine=combine)
    sums = dict.fromkeys(LOSSES, 0.0)
    for rows in (slice(6), slice(6, 12)):
        z, losses = plain.step(rows)
        for task, loss in penalised(dgr, z, losses, plain.targets(rows)).items():
            sums[task] = sums[task] + loss / 2
    methods.PCGrad().backward(sums, shared=plain.shared())
    torch.testing.assert_close(net.grads(), plain.grads())


def test_a_saved_run_goes_on_with_the_same_dummies():
    net = Net()
    dgr = net.dgr(seed=1)
    file = io.BytesIO()
    torch.save(dgr.state_dict(), file)
    resumed = net.dgr(seed=2)
    z, losses = net.step()
    rows = [d(z, net.targets()).cotangents(TaskLosses(losses)) for d in (dgr, resumed)]
    assert not torch.equal(rows[0][0][0][1], rows[1][0][0][1])
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    again = resumed(z, net.targets()).cotangents(TaskLosses(losses))
    assert all(torch.equal(a[0][1], b[0][1]) for a, b in zip(rows[0], again, strict=True))


def test_the_draw_depends_on_the_seed_alone():
    net = Net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = net.dgr(seed=4).state_dict()
    assert torch.equal(torch.rand(3), expected)
    second = net.dgr(seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    dummies = net.dgr().dummies["class"].copies
    assert not torch.equal(dummies[0].weight, dummies[1].weight)


@pytest.mark.parametrize("mode", ["exact", "finite_difference"])
def test_the_scaler_scales_the_penalty(mode):
    net, scaled = Net(dtype=DOUBLE), Net(dtype=DOUBLE)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for of, options in ((net, {}), (scaled, {"scaler": scaler})):
        z, losses = of.step()
        methods.MGDA().backward(losses, features=z, penalties=[of.dgr(mode=mode)(z, of.targets())], **options)
    torch.testing.assert_close({key: grad / 1024 for key, grad in scaled.grads().items()}, net.grads())


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("reduction", ["batch", "sample"])
def test_under_autocast_the_dummies_compute_as_the_heads_do(inside, reduction):
    net, plain = Net(), Net()
    dgr = net.dgr(reduction=reduction)
    with torch.autocast("cpu", torch.bfloat16):
        z, losses = net.step()
        penalty = dgr(z, net.targets()) if inside else None
    penalty = penalty or dgr(z, net.targets())
    assert z.dtype == torch.bfloat16
    methods.EW().backward(losses, penalties=[penalty])
    z, losses = plain.step()
    methods.EW().backward(losses, penalties=[dgr(z, plain.targets())])
    for name, grad in net.grads().items():
        assert 0 < (grad - plain.grads()[name]).norm() < 0.1 * plain.grads()[name].norm(), name


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_it_works_with_compiled_parts():
    net, plain = Net(), Net()
    compiled = lambda module: torch.compile(module, backend="aot_eager")  # noqa: E731
    grads = []
    for of, wrap in ((net, compiled), (plain, lambda module: module)):
        trunk, its_heads = wrap(of.trunk), {task: wrap(head) for task, head in of.heads.items()}
        dgr = DGR(its_heads, LOSSES, strength=0.2)
        z = trunk(of.inputs)
        targets = of.targets()
        losses = {task: loss(its_heads[task](z), targets[task]) for task, loss in LOSSES.items()}
        methods.MGDA().backward(losses, features=z, penalties=[dgr(z, targets)])
        grads.append({name: grad for name, grad in of.grads().items() if grad is not None})
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("level", ["shared", "features", "both"])
def test_in_mtan_it_trains_attention_and_backbone(level):
    tasks = [Task("seg", "pixels", 3, pixel_cross_entropy, ()), Task("depth", "pixels", 1, masked_l1, ())]
    torch.manual_seed(0)
    model = mtan(tasks, depth=18, width=2, rates=(1,), dropout=0.0)
    targets = {"seg": torch.randint(3, (2, 32, 32)), "depth": torch.rand(2, 1, 32, 32) + 1}
    inputs = torch.randn(2, 3, 32, 32)
    dgr = DGR({t.name: model.head(t.name) for t in tasks}, {t.name: t.loss for t in tasks}, strength=10.0)
    grads = []
    for penalise in (False, True):
        model.zero_grad()
        z = model.features(inputs)
        read = {t.name: model.head_features(z, t.name) for t in tasks}
        losses = {t.name: t.loss(model.head(t.name)(read[t.name]), targets[t.name]) for t in tasks}
        shared = {"shared": model.shared_parameters()} if level != "features" else {}
        features = {"features": z} if level != "shared" else {}
        methods.PCGrad().backward(losses, **shared, **features, penalties=[dgr(read, targets)] * penalise)
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    first, second = grads
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert same == {name for name in first if name.startswith("heads")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "strength is -1.0, expected a number at least 0"),
        ({"dummies": 0}, "dummies is 0, expected a number at least 1"),
        ({"reduction": "mean"}, "reduction is 'mean', expected one of 'batch', 'sample'"),
        ({"mode": "fd"}, "mode is 'fd', expected one of 'exact', 'finite_difference'"),
        ({"reduction": "sample", "mode": "finite_difference"}, "reduction is 'sample', which is computed exactly only"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Net().dgr(**options)


def test_heads_that_cannot_be_are_named():
    net = Net()
    with pytest.raises(ValueError, match=r"heads has the tasks \['sum', 'class'\], losses \['sum'\]"):
        DGR(dict(net.heads), {"sum": CE}, strength=1.0)
    with pytest.raises(ValueError, match=r"task 'a\.b' has a dot in its name"):
        DGR({"a.b": nn.Linear(2, 2)}, {"a.b": CE}, strength=1.0)
    with pytest.raises(ValueError, match=r"head \(Flatten\) has no parameters"):
        DGR([nn.Flatten()], [CE], strength=1.0)
    with pytest.raises(ValueError, match=r"layer '0' \(BatchNorm1d\) of a head couples the samples"):
        DGR([nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))], [CE], strength=1.0, reduction="sample")
    z, losses = net.step()
    with pytest.raises(ValueError, match="the inputs of task 'sum' do not require grad"):
        net.dgr()(z.detach(), net.targets())
    with pytest.raises(ValueError, match=r"DGR has the task 'sum', losses has the tasks \[0, 1\]"):
        methods.EW().backward(list(losses.values()), penalties=[net.dgr()(z, net.targets())])
