"""IAL: both stages against the formulas computed naively, its ablations' options, what it logs, keeps and warns of."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from nets import TwoHeads
from small_data import SIZE, make_data
from torch import nn

from mtl_ext import methods
from mtl_ext.methods import IAL, AutoLambda, NonFiniteError
from mtl_ext.trainers import TrainConfig, Trainer

DOUBLE = torch.float64
TASKS = ("seg", "depth", "normals")
LOSSES = torch.tensor([0.4, 0.9, 0.6], dtype=DOUBLE)


class Net(nn.Module):
    """A trunk with two feature tensors, and three heads that read both."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.ModuleList([nn.Linear(6, 5), nn.Linear(6, 4)])
        self.heads = nn.ModuleDict({task: nn.Linear(9, k + 1) for k, task in enumerate(TASKS)})
        self.double()

    def forward(self, seed=0):
        """Features and losses of a batch."""
        draw = torch.Generator().manual_seed(seed)
        inputs = torch.randn(12, 6, dtype=DOUBLE, generator=draw)
        features = [torch.tanh(layer(inputs)) for layer in self.trunk]
        both = torch.cat(features, 1)
        losses = {}
        for k, (task, head) in enumerate(self.heads.items()):
            target = torch.randn(12, k + 1, dtype=DOUBLE, generator=draw)
            losses[task] = 10.0 ** (-k) * (head(both) - target).square().mean()
        return features, losses


def flat(grads):
    return torch.cat([grad.flatten() for grad in grads])


def jacobian(seed):
    scales = torch.tensor([[1.0], [30.0], [0.1]], dtype=DOUBLE)
    return scales * torch.randn(3, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def call(method, rows, losses=LOSSES):
    """One call with given per-task gradients and losses: combined gradient and weights."""
    x = torch.zeros(rows.shape[1], dtype=DOUBLE, requires_grad=True)
    weights = method.backward(dict(zip(TASKS, rows @ x + losses, strict=True)), shared=[x])
    return x.grad, weights


def sigma_of(method):
    return (method.uncertainty.log_variances.detach().double() / 2).exp()


def set_sigma(method, values):
    with torch.no_grad():
        method.uncertainty.log_variances.copy_(2 * torch.tensor(values).log())


@pytest.mark.parametrize("level", ["features", "shared"])
@pytest.mark.parametrize("primary", [["seg"], ["normals"], ["seg", "depth"]])
def test_both_stages_are_the_formulas_computed_naively(level, primary):
    net = Net()
    method = IAL(3, primary=primary)
    optimizer = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.2)
    for step in range(4):
        features, losses = net(step)
        trunk = list(net.trunk.parameters())
        targets = features if level == "features" else trunk
        per_task = {t: torch.autograd.grad(loss, targets, retain_graph=True) for t, loss in losses.items()}
        sigma = dict(zip(TASKS, sigma_of(method), strict=True))
        main = [sum(parts) for parts in zip(*(per_task[task] for task in primary), strict=True)]
        encoder = main
        for task in set(TASKS) - set(primary):
            factor = min(1.0, max(0.0, 1 - sigma[task].item())) * flat(main).norm() / flat(per_task[task]).norm()
            encoder = [total + factor * grad for total, grad in zip(encoder, per_task[task], strict=True)]
        if level == "features":
            encoder = torch.autograd.grad(features, trunk, encoder, retain_graph=True)
        decoder = sum(loss / (2 * sigma[task] ** 2) for task, loss in losses.items())
        heads = torch.autograd.grad(decoder, list(net.heads.parameters()), retain_graph=True)
        values = torch.stack([loss.detach() for loss in losses.values()])
        optimizer.zero_grad()
        method.backward(losses, **{level: targets})
        for param, grad in zip((*trunk, *net.heads.parameters()), (*encoder, *heads), strict=True):
            torch.testing.assert_close(param.grad, grad)
        slope = (0.5 - values / (2 * sigma_of(method) ** 2)).float()
        torch.testing.assert_close(method.uncertainty.log_variances.grad, slope)
        torch.testing.assert_close(method.sigma, torch.stack(list(sigma.values())))
        torch.testing.assert_close(method.norms, torch.stack([flat(per_task[task]).norm() for task in TASKS]))
        optimizer.step()
    assert (sigma_of(method) != method.sigma).all()
    assert method.weights.min() > 0


def test_auxiliary_weights_start_at_a_tenth_of_matched_norms_and_the_squared_uncertainty_ends_at_the_loss():
    method = IAL(3)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    rows = jacobian(0)
    _, weights = call(method, rows)
    torch.testing.assert_close(weights * method.norms / method.norms[0], torch.tensor([1.0, 0.1, 0.1]).double())
    torch.testing.assert_close(method.decoder_weights, torch.full((3,), 1 / (2 * 0.81)).double())
    for _ in range(300):
        optimizer.zero_grad()
        call(method, rows)
        optimizer.step()
    torch.testing.assert_close(sigma_of(method) ** 2, LOSSES, atol=1e-3, rtol=0)


@pytest.mark.parametrize("g", ["relu", "softplus", "exp"])
def test_the_map_of_the_uncertainty_is_chosen(g):
    method = IAL(3, indicator_options={"g": g}, match_norms=False)
    set_sigma(method, [0.5, 0.7, 1.6])
    maps = {"relu": lambda x: max(x, 0.0), "softplus": lambda x: math.log1p(math.exp(x)), "exp": math.exp}
    _, weights = call(method, jacobian(0))
    expected = [1.0, *(min(1.0, maps[g](1 - sigma)) for sigma in (0.7, 1.6))]
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def expected_indicator(name, rows, losses, first):
    """Weights of one step in numpy, before norms are matched."""
    norms = np.linalg.norm(rows, axis=1)
    if name == "cosine":
        return np.maximum(0, rows @ rows[0] / norms / norms[0])
    rates = (losses / first) / (losses / first).mean()
    return np.clip(norms.mean() * rates**0.7 / norms[0], 0, 1)


@pytest.mark.parametrize(("name", "options"), [("cosine", {}), ("gradient_norm", {"alpha": 0.7})])
@pytest.mark.parametrize("match", [True, False])
def test_cosines_and_expected_norms_can_take_the_place_of_uncertainty(name, options, match):
    method = IAL(3, indicator=name, indicator_options=options, match_norms=match)
    for step in range(4):
        rows, losses = jacobian(step), LOSSES * torch.tensor([1.0, 0.8, 0.5]) ** step
        _, weights = call(method, rows, losses)
        expected = expected_indicator(name, rows.numpy(), losses.numpy(), LOSSES.numpy())
        norms = np.linalg.norm(rows.numpy(), axis=1)
        expected = expected * (norms[0] / norms if match else 1.0)
        np.testing.assert_allclose(weights.numpy(), [1.0, *expected[1:]], rtol=1e-6)


def test_training_speed_counts_tasks_more_whose_loss_falls_faster():
    method = IAL(3, indicator="training_speed", match_norms=False)
    means = [LOSSES, LOSSES * torch.tensor([0.9, 0.5, 1.0])]
    for epoch, losses in enumerate([*means, LOSSES]):
        for share in (0.9, 1.1):
            _, weights = call(method, jacobian(epoch), share * losses)
        rates = np.ones(3) if epoch < 2 else np.array([0.9, 0.5, 1.0])
        np.testing.assert_allclose(weights[1:].numpy(), 1 - rates[1:] / rates.sum(), rtol=1e-6)
        method.end_epoch()


@pytest.mark.parametrize(
    ("indicator", "expected"), [(0.1, [1.0, 0.1, 0.1]), ([9.0, 0.2, 0.4], [1.0, 0.2, 0.4]), (0, [1.0, 0.0, 0.0])]
)
def test_numbers_stay(indicator, expected):
    method = IAL(3, indicator=indicator, match_norms=False)
    assert call(method, jacobian(0))[1].tolist() == expected


def test_a_function_can_be_the_indicator():
    def halves(gram, losses, sigma, primary):
        assert gram.shape == (3, 3)
        assert primary.tolist() == [0.0, 1.0, 0.0]
        torch.testing.assert_close(losses, LOSSES)
        return sigma / 2

    method = IAL(3, primary="depth", indicator=halves, match_norms=False)
    np.testing.assert_allclose(call(method, jacobian(0))[1].numpy(), [0.45, 1.0, 0.45], rtol=1e-6)
    with pytest.raises(ValueError, match=r"indicator gave weights of shape \[2\], expected one per task: \[3\]"):
        call(IAL(3, indicator=lambda gram, losses, sigma, primary: sigma[:2]), jacobian(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indicator": "cosine", "indicator_options": {"g": "relu"}}, "holds 'g': indicator 'cosine' has .*"),
        ({"indicator_options": {"g": "tanh"}}, "g is 'tanh', expected one of 'relu', 'softplus', 'exp'"),
        ({"indicator": 0.1, "indicator_options": {"g": "relu"}}, "only an indicator given by its name has options"),
        ({"indicator": "auto_lambda", "indicator_options": {"lr": -1}}, "lr is -1"),
        ({"indicator": -0.1}, r"indicator\[0\] is -0.1, expected a finite number of at least 0"),
        ({"method": methods.TrimmedMean()}, "expected one that weighs losses, or a GramMethod"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        IAL(3, **arguments)


BUILD = {
    "EW": lambda: methods.EW(),
    "FixedWeights": lambda: methods.FixedWeights(3, weights=[1.0, 0.1, 0.3]),
    "GradNorm": lambda: methods.GradNorm(3, lr=0.1, alpha=0.5),
    "DWA": lambda: methods.DWA(3),
    "RLW": lambda: methods.RLW(seed=3),
    "IMTLL": lambda: methods.IMTLL(3),
    "STCH": lambda: methods.STCH(3, warmup_epochs=1),
}


@pytest.mark.parametrize("name", BUILD)
def test_another_method_can_weigh_the_decoders(name):
    """As it weighs losses when it is alone, in every epoch; sigma and the encoder are as without it."""
    alone, method, plain = BUILD[name](), IAL(3, method=BUILD[name]()), IAL(3)
    for step in range(6):
        rows, losses = jacobian(step), LOSSES * torch.tensor([1.0, 0.9, 0.7]) ** step
        _, weights = call(alone, rows, losses)
        grad, encoder = call(method, rows, losses)
        torch.testing.assert_close(method.decoder_weights, weights)
        expected_grad, expected = call(plain, rows, losses)
        assert torch.equal(encoder, expected)
        assert torch.equal(grad, expected_grad)
        for which in (alone, method):
            which.end_epoch()
    torch.testing.assert_close(method.uncertainty.log_variances.grad, plain.uncertainty.log_variances.grad)
    for own, reference in zip(method.method.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(own.grad, reference.grad)


def test_an_uncertainty_weighting_of_ones_own_is_the_uncertainty():
    own = methods.UW(3, form=2)
    method = IAL(3, method=own)
    assert method.uncertainty is own
    assert [*method.parameters()] == [own.log_variances]
    _, weights = call(method, jacobian(0))
    assert weights.tolist() == [1.0, 0.0, 0.0]  # its sigma starts at 1
    assert method.decoder_weights.tolist() == [1.0, 1.0, 1.0]


def test_hooks_reach_what_weighs_the_decoders():
    famo, dtp, look = IAL(3, method=methods.FAMO(3)), IAL(3, method=methods.DTP(3)), IAL(3, method=AutoLambda(3))
    assert (famo.second_look, dtp.wants_performance, look.bilevel) == (True, True, True)
    assert not any((look.second_look, look.wants_performance, famo.bilevel))
    call(famo, jacobian(0))
    famo.look_again([0.5 * loss for loss in LOSSES])
    assert famo.method.adam.steps == 1
    dtp.update_performance([0.5, 0.6, 0.7])
    call(dtp, jacobian(0))
    assert dtp.decoder_weights[0] == pytest.approx(-(0.5**2) * math.log(0.5))


def test_only_norms_of_tasks_with_inputs_of_their_own_are_compared():
    net, plain = TwoHeads(dtype=DOUBLE), TwoHeads(dtype=DOUBLE)
    features, losses = net.own_inputs()
    method = IAL(2, primary="class")
    weights = method.backward(losses, features=features)
    _, losses = plain.own_inputs()
    (weights[0] * losses["sum"] + losses["class"]).backward()
    for p, q in zip(net.trunk.parameters(), plain.trunk.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    torch.testing.assert_close(weights[0], 0.1 * method.norms[1] / method.norms[0], rtol=1e-6, atol=0)
    for comparing in ({"indicator": "cosine"}, {"method": methods.PCGrad()}, {"indicator": lambda *_: _[1]}):
        features, losses = net.own_inputs()
        with pytest.raises(ValueError, match="reads features of its own input"):
            IAL(2, **comparing).backward(losses, features=features)


def test_a_gradient_of_zero_is_absent():
    rows = jacobian(0)
    rows[1] = 0
    for options in ({}, {"match_norms": False}, {"indicator": "gradient_norm"}, {"indicator": "auto_lambda"}):
        _, weights = call(IAL(3, **options), rows)
        assert weights[1] == 0
        assert weights[2] > 0


def test_auto_lambda_can_weigh_the_encoder_while_decoders_are_trained_impartially():
    net, options = Net(), {"initial": 0.2, "lr": 1e-2}
    method = IAL(3, primary="depth", indicator="auto_lambda", indicator_options=options)
    reference = AutoLambda(3, primary="depth", **options)
    optimizer = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.1, momentum=0.9)
    assert method.bilevel
    for step in range(3):
        arguments = (lambda step=step: net(step)[1], lambda step=step: net(50 + step)[1], net, optimizer)
        reference.update_weights(*arguments)
        method.update_weights(*arguments)
        features, losses = net(step)
        trunk, heads = list(net.trunk.parameters()), list(net.heads.parameters())
        values = torch.stack(list(losses.values()))
        encoder = torch.autograd.grad(reference.weights @ values, trunk, retain_graph=True)
        decoder = torch.autograd.grad((values / (2 * sigma_of(method) ** 2)).sum(), heads, retain_graph=True)
        optimizer.zero_grad()
        assert torch.equal(method.backward(losses, features=features), reference.weights)
        for param, grad in zip((*trunk, *heads), (*encoder, *decoder), strict=True):
            torch.testing.assert_close(param.grad, grad)
        optimizer.step()
    assert (reference.weights != 0.2).all()


@pytest.mark.parametrize(("nonfinite", "raises"), [("raise", True), ("skip", False)])
def test_the_look_ahead_treats_bad_losses_as_the_method_does(nonfinite, raises):
    net = Net()
    method = IAL(3, indicator="auto_lambda", nonfinite=nonfinite)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def bad():
        return {task: loss * torch.nan for task, loss in net(1)[1].items()}

    if raises:
        with pytest.raises(NonFiniteError):
            method.update_weights(lambda: net(0)[1], bad, net, optimizer)
    else:
        method.update_weights(lambda: net(0)[1], bad, net, optimizer)
    assert (method.indicator.method.weights == 0.1).all()


def test_an_epoch_without_an_auxiliary_task_is_told():
    method = IAL(3, primary="seg")
    set_sigma(method, [1.5, 1.2, 0.5])
    for step in range(4):
        call(method, jacobian(step), LOSSES + torch.tensor([0.0, step, 0.0]))
    message = r"weight was 0 in every step of the epoch for 'depth' \(mean loss 2.4, sigma 1.2\). Where sigma is 1 or"
    with pytest.warns(UserWarning, match=message):
        method.end_epoch()
    assert method.zero_share.tolist() == [0.0, 1.0, 0.0]
    set_sigma(method, [0.5, 0.5, 0.5])
    call(method, jacobian(0))
    set_sigma(method, [0.5, 1.2, 0.5])
    call(method, jacobian(0))
    method.end_epoch()
    assert method.zero_share.tolist() == [0.0, 0.5, 0.0]
    fixed = IAL(3, indicator=0)
    call(fixed, jacobian(0))
    with pytest.warns(UserWarning, match=r"for 'depth' \(mean loss 0.9, sigma 0.9\), 'normals' \(.*sigma 0.9\)$"):
        fixed.end_epoch()


def test_what_a_step_was_made_of_is_there_to_be_logged():
    method = IAL(3)
    assert method.logged == methods.EW().logged == {}
    set_sigma(method, [0.5, 0.8, 1.5])
    rows = jacobian(0)
    call(method, rows)
    logged = method.logged
    assert list(logged) == [f"{x}/{task}" for x in ("sigma", "norm", "decoder_weight", "zero_share") for task in TASKS]
    expected = [0.5, 0.8, 1.5, *rows.norm(dim=1).tolist(), 2.0, 1 / 1.28, 1 / 4.5, 0.0, 0.0, 1.0]
    np.testing.assert_allclose(list(logged.values()), expected, rtol=1e-6)


OPTIONS = [
    {},
    {"method": "DWA", "indicator": "gradient_norm"},
    {"method": "RLW", "indicator": "training_speed", "indicator_options": {"window": 2}},
    {"method": "GradNorm", "indicator": 0.2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_goes_on_from_its_state_bit_for_bit(options):
    def build():
        name = options.get("method")
        return IAL(3, **options | ({} if name is None else {"method": BUILD[name]()}))

    def step(method, optimizer, seed):
        optimizer.zero_grad()
        grad, weights = call(method, jacobian(seed), LOSSES * 0.9**seed)
        optimizer.step()
        return torch.cat([grad, weights, method.decoder_weights, sigma_of(method), method.zero_share.nan_to_num()])

    used, fresh = build(), build()
    optimizers = [torch.optim.SGD(method.parameters(), lr=0.1) for method in (used, fresh)]
    for seed in range(3):
        step(used, optimizers[0], seed)
        used.end_epoch()
    step(used, optimizers[0], 3)
    fresh.load_state_dict(used.state_dict())
    for seed in range(4, 7):
        assert torch.equal(step(used, optimizers[0], seed), step(fresh, optimizers[1], seed))
        used.end_epoch()
        fresh.end_epoch()


def test_uncertainties_are_not_trained_on_a_bad_step_and_have_the_scalers_scale():
    for nonfinite, scale in (("skip", None), ("propagate", 64.0)):
        net, method = TwoHeads(dtype=DOUBLE), IAL(2, nonfinite=nonfinite)
        scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
        z, losses = net()
        method.backward(losses, features=z, scaler=scaler)
        values = torch.stack([loss.detach() for loss in losses.values()])
        slope = (0.5 - values / (2 * sigma_of(method) ** 2)).float() * (scale or 1.0)
        torch.testing.assert_close(method.uncertainty.log_variances.grad, slope)
        z, losses = net()
        losses["sum"] = losses["sum"] + (z - z.detach()).abs().sqrt().sum()  # infinite slope, finite value
        method.backward(losses, features=z, scaler=scaler)
        if scaler is None:
            torch.testing.assert_close(method.uncertainty.log_variances.grad, slope)
            assert method.epoch_zeros.count == 1
        else:
            assert method.uncertainty.log_variances.grad.isnan().all()  # the scaler leaves the step out


def test_decoders_may_be_trained_on_their_own_losses():
    net, plain = TwoHeads(), TwoHeads()
    z, losses = net()
    method = IAL(2, weight_heads=False)
    method.backward(losses, features=z)
    sum(plain()[1].values()).backward()
    for p, q in zip(net.heads.parameters(), plain.heads.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert method.uncertainty.log_variances.grad is not None


@pytest.mark.parametrize(
    "options",
    [
        {"primary": "mean", "method": {"name": "GradNorm", "alpha": 0.0}},
        {"primary": ["mean", "bright"], "indicator": "auto_lambda", "indicator_options": {"lr": 1e-2}},
    ],
)
@pytest.mark.filterwarnings("ignore:the encoder's weight was 0")
def test_a_configuration_trains_it(options):
    config = TrainConfig(method="IAL", method_options=options, level="feature", epochs=3, batch_size=32, lr=1e-2)
    trainer = Trainer(replace(config, model_options={"size": SIZE}), make_data())
    result = trainer.fit()
    first, last = (sum(result.epochs[epoch].losses.values()) for epoch in (0, -1))
    assert last < first
    method = trainer.parts.method
    assert (method.uncertainty.log_variances != 2 * math.log(0.9)).all()
    assert set(method.logged) >= {"sigma/mean", "norm/bright"}
    if method.bilevel:
        assert (method.indicator.method.weights != 0.1).all()
