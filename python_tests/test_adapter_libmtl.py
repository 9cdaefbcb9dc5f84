"""This package's methods as LibMTL's weightings, in a stand-in for LibMTL's model and Trainer."""

import subprocess
import sys

import fake_libmtl
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar, nnls
from torch import nn

from mtl_ext import methods
from mtl_ext.adapters import libmtl
from mtl_ext.adapters.libmtl import WEIGHTINGS
from mtl_ext.ops.philox import philox_uniform

NO_REP = {"MoCo", "DB_MTL", "MoDo", "SDMGrad"}
ELEMENTWISE = {"GradDrop", "MoCo", "DB_MTL"}
THREE_BATCHES = {"MoDo", "SDMGrad"}


@pytest.fixture(autouse=True)
def peer(monkeypatch):
    """LibMTL, in float64."""
    for name, module in fake_libmtl.modules(WEIGHTINGS).items():
        monkeypatch.setitem(sys.modules, name, module)
    torch.set_default_dtype(torch.float64)
    yield fake_libmtl.package.weighting
    libmtl.restore()
    torch.set_default_dtype(torch.float32)


def trainer(name, num_tasks=2, rep_grad=False, multi_input=False, weight_args=None):
    torch.manual_seed(1)
    tasks = {f"task{k}": nn.functional.mse_loss if k % 2 else nn.functional.smooth_l1_loss for k in range(num_tasks)}
    decoders = nn.ModuleDict({task: nn.Linear(5, 1) for task in tasks})

    def encoder():
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))

    return fake_libmtl.Trainer(tasks, name, encoder, decoders, rep_grad, multi_input, weight_args)


def batches(made, count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        batch = {"inputs": torch.randn(8, 4, generator=draw)}
        batch |= {task: torch.randn(8, 1, generator=draw) for task in made.tasks}
        if made.multi_input:
            batch = {task: (torch.randn(8 + k, 4, generator=draw),) for k, task in enumerate(made.tasks)}
            batch = {task: (x, torch.randn(len(x), 1, generator=draw)) for task, (x,) in batch.items()}
        found.append(batch)
    return found


def gradients(made, batch):
    """Naively: losses [K], encoder's Jacobian [K, n], heads' gradients by task, what is compared [K, *]."""
    model = made.model
    losses = made.losses(batch)
    encoder, rows, heads = list(model.encoder.parameters()), [], []
    for k, task in enumerate(made.tasks):
        params = list(model.decoders[task].parameters())
        if model.rep_grad:
            copy = model.rep_tasks[task]
            root = model.rep[task] if isinstance(model.rep, dict) else model.rep
            grad, *own = torch.autograd.grad(losses[k], [copy, *params], retain_graph=True)
            flat = torch.autograd.grad(root, encoder, grad, retain_graph=True)
            rows.append((torch.cat([g.flatten() for g in flat]), grad.sum(0).flatten()))
        else:
            found = torch.autograd.grad(losses[k], [*encoder, *params], retain_graph=True)
            flat, own = found[: len(encoder)], found[len(encoder) :]
            rows.append((torch.cat([g.flatten() for g in flat]),) * 2)
        heads.append(torch.cat([g.flatten() for g in own]).numpy())
    jacobian, compared = (torch.stack(part).numpy() for part in zip(*rows, strict=True))
    return losses.detach().numpy(), jacobian, heads, compared


def found_gradients(made):
    """Encoder's gradient [n], and each head's."""
    flat = torch.cat([param.grad.flatten() for param in made.model.encoder.parameters()])
    heads = [
        torch.cat([p.grad.flatten() for p in made.model.decoders[task].parameters()]).numpy() for task in made.tasks
    ]
    return flat.numpy(), heads


# Weights of two tasks in the first step, from the formulas: (Gram matrix, losses) -> (encoder, heads)


def pcgrad(gram, losses):
    overlap = min(gram[0, 1], 0.0)
    return 1 - overlap / gram.diagonal(), 1


def imtl(gram, losses):
    norms = np.sqrt(gram.diagonal())
    return norms[::-1] / norms.sum(), 1


def mgda(gram, losses):
    share = (gram[1, 1] - gram[0, 1]) / (gram[0, 0] + gram[1, 1] - 2 * gram[0, 1])
    share = np.clip(share, 0, 1)
    return np.array([share, 1 - share]), 1


def cagrad(gram, losses):
    mean = np.array([0.5, 0.5])
    radius = 0.5 * np.sqrt(mean @ gram @ mean)

    def objective(x):
        w = np.array([x, 1 - x])
        return w @ gram @ mean + radius * np.sqrt(w @ gram @ w)

    share = minimize_scalar(objective, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}).x
    w = np.array([share, 1 - share])
    return (mean + radius / np.sqrt(w @ gram @ w) * w) / 1.25, 1


def nash(gram, losses):
    """The equation ``G a = 1 / a`` for two tasks: a_0 and a_1 keep the ratio of their gradients' lengths."""
    norms = np.sqrt(gram.diagonal())
    weights = 1 / norms / np.sqrt(1 + gram[0, 1] / norms.prod())
    return weights, weights


def nash_shortened(gram, losses):
    weights, heads = nash(gram, losses)
    return weights / np.sqrt(weights @ gram @ weights), heads


def aligned(gram, losses):
    values, vectors = np.linalg.eigh(gram)
    return vectors @ np.diag(np.sqrt(values[0] / values)) @ vectors.T @ np.ones(2), 1


def famo(gram, losses):
    weights = 1 / losses / (1 / losses).sum()
    return weights, weights


def gls(gram, losses):
    weights = np.sqrt(losses.prod()) / (2 * losses)
    return weights, weights


def rlw(gram, losses):
    noise = torch.randn(2, generator=torch.Generator().manual_seed(1), dtype=torch.float32).double().numpy()
    weights = np.exp(noise) / np.exp(noise).sum()
    return weights, weights


def upgrad(gram, losses):
    factor = np.linalg.cholesky(gram / gram.trace() + 1e-4 * np.eye(2)).T
    lower = np.eye(2) / 2
    return sum(row + nnls(factor, -factor @ row)[0] for row in lower), 1


def equal(gram, losses):
    return np.ones(2), 1


FORMULAS = {
    "EW": equal,
    "UW": lambda gram, losses: (np.full(2, np.exp(0.5) / 2),) * 2,
    "DWA": equal,
    "GLS": gls,
    "RLW": rlw,
    "RGW": lambda gram, losses: (rlw(gram, losses)[0], 1),
    "IMTL": imtl,
    "GradNorm": equal,
    "MGDA": mgda,
    "PCGrad": pcgrad,
    "GradVac": pcgrad,
    "CAGrad": cagrad,
    "Nash_MTL": nash_shortened,
    "Aligned_MTL": aligned,
    "STCH": lambda gram, losses: (1 / losses,) * 2,
    "ExcessMTL": equal,
    "FairGrad": nash,
    "FAMO": famo,
    "UPGrad": upgrad,
}
LEVELS = {"parameters": (False, False), "rep": (True, False), "own rep": (True, True), "own inputs": (False, True)}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", FORMULAS)
def test_first_gradient_is_that_of_the_formula(name, level):
    libmtl.accelerate()
    made = trainer(name, 2, *LEVELS[level])
    (batch,) = batches(made, 1)
    losses, jacobian, heads, compared = gradients(made, batch)
    weights, head_weights = FORMULAS[name](compared @ compared.T, losses)
    made.model.epoch = 0
    _, returned = made.step([batch], step=False)
    encoder, head_grads = found_gradients(made)
    np.testing.assert_allclose(returned, weights, rtol=2e-5)
    np.testing.assert_allclose(encoder, weights @ jacobian, rtol=2e-5, atol=1e-7)
    for k, own in enumerate(heads):
        np.testing.assert_allclose(head_grads[k], np.broadcast_to(head_weights, 2)[k] * own, rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", sorted(set(WEIGHTINGS) - ELEMENTWISE - THREE_BATCHES))
def test_later_gradients_are_the_weighted_sum(name, level):
    libmtl.accelerate()
    made = trainer(name, 3, *LEVELS[level])
    data = batches(made, 3)
    made.train(data[:2], 1)
    _, jacobian, _, _ = gradients(made, data[2])
    _, weights = made.step(data[2:], step=False)
    np.testing.assert_allclose(found_gradients(made)[0], weights @ jacobian, rtol=1e-6, atol=1e-9)
    assert weights.shape == (3,)


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
def test_training_lowers_the_losses_and_state_loads_into_a_fresh_model(name):
    libmtl.accelerate()
    made = trainer(name, 3)
    data = batches(made, 6)
    history = made.train(data[:1] * 9, 3)
    assert history[-1][0].sum() < history[0][0].sum()
    fresh = trainer(name, 3)
    assert fresh.model.load_state_dict(made.model.state_dict()) is not None
    fresh.model.epoch = made.model.epoch
    last = data[3:6] if name in THREE_BATCHES else data[3:4]
    for each in (made, fresh):
        each.model._epoch = None
        each.step(last, step=False)
    torch.testing.assert_close(found_gradients(fresh)[0], found_gradients(made)[0], rtol=1e-12, atol=1e-15)


# Element by element, and three batches


def test_moco_and_db_mtl_combine_averages():
    libmtl.accelerate()
    for name in ("MoCo", "DB_MTL"):
        made = trainer(name)
        (batch,) = batches(made, 1)
        losses, jacobian, heads, _ = gradients(made, batch)
        made.step([batch], step=False)
        encoder, head_grads = found_gradients(made)
        if name == "MoCo":
            averages = 0.5 * losses[:, None] * jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
            scores = np.exp(0.5 - 0.1 * averages @ averages.T @ np.array([0.5, 0.5]))
            expected, factors = scores / scores.sum() @ averages, np.ones(2)
        else:
            averages = 0.1 * jacobian / losses[:, None]
            norms = np.linalg.norm(averages, axis=1)
            expected, factors = norms.max() / norms @ averages, 1 / losses
        np.testing.assert_allclose(encoder, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(head_grads[1], factors[1] * heads[1], rtol=1e-6)


@pytest.mark.parametrize("multi_input", [False, True])
def test_graddrop_draws_one_sign_for_a_position_of_the_representation(multi_input):
    libmtl.accelerate()
    made = trainer("GradDrop", 3, True, multi_input, {"leak": 0.25})
    (batch,) = batches(made, 1)
    losses = made.losses(batch)
    copies = [made.model.rep_tasks[task] for task in made.tasks]
    rep = made.model.rep
    roots = [rep[task] if multi_input else rep for task in made.tasks]
    grads = [torch.autograd.grad(losses[k], copy, retain_graph=True)[0] for k, copy in enumerate(copies)]
    marginal = torch.stack([(root.sign() * grad).sum(0) for root, grad in zip(roots, grads, strict=True)])
    purity = (1 + marginal.sum(0) / marginal.abs().sum(0)) / 2
    uniform = philox_uniform(torch.tensor([1, 0]), 0, torch.arange(5)).double()
    passes = torch.where(purity > uniform, marginal > 0, marginal < 0)
    masked = [grad * (0.25 + 0.75 * mask) for grad, mask in zip(grads, passes, strict=True)]
    expected = torch.autograd.grad(roots, list(made.model.encoder.parameters()), masked)
    made.step([batch], step=False)
    for param, grad in zip(made.model.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(param.grad, grad)
    assert 0 < passes.sum() < 15


def simplex(values):
    ranked = np.sort(values)[::-1]
    excess = (np.cumsum(ranked) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(values - excess[ranked > excess][-1], 0)


@pytest.mark.parametrize("name", sorted(THREE_BATCHES))
def test_three_batches_give_weights_and_the_third_the_gradient(name):
    libmtl.accelerate()
    made = trainer(name, weight_args={"MoDo_gamma": 0.5} if name == "MoDo" else None)
    data = batches(made, 3)
    first, second, third = (gradients(made, batch) for batch in data)
    products, weights = first[1] @ second[1].T, np.array([0.5, 0.5])
    if name == "MoDo":
        weights = simplex(weights - 0.5 * (products @ weights + 0.1 * weights))
    else:
        products /= np.sqrt(np.maximum(products.diagonal(), 0)).mean() ** 2
        velocity = 0.0
        for _ in range(20):
            velocity = velocity / 2 + products @ (weights + 0.15)
            weights = simplex(weights - 5 * velocity)
        weights = (weights + 0.15) / 1.3
    _, returned = made.step(data, step=False)
    encoder, heads = found_gradients(made)
    np.testing.assert_allclose(returned, weights, atol=1e-9)
    np.testing.assert_allclose(encoder, weights @ third[1], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(heads[0], third[2][0], rtol=1e-9)


# LibMTL's arguments and habits


@pytest.mark.parametrize(
    ("name", "weight_args", "expected"),
    [
        ("DWA", {"T": 3.0}, {"temperature": 3.0}),
        ("MGDA", {"mgda_gn": "loss+"}, {"normalization": "loss+"}),
        ("GradNorm", {"alpha": 0.5}, {"alpha": 0.5, "layer": "all"}),
        ("GradVac", {"GradVac_beta": 0.1, "GradVac_group_type": 2}, {"beta": 0.1, "groups": "tensor"}),
        ("CAGrad", {"calpha": 0.3, "rescale": 2}, {"c": 0.3, "rescale": 2, "reduction": "mean"}),
        ("Nash_MTL", {"update_weights_every": 4, "optim_niter": 9, "max_norm": 0.0}, {"max_norm": None}),
        ("MoCo", {"MoCo_gamma_sigma": 0.7, "MoCo_rho": 0.1}, {"sigma_gamma": 0.7, "rho": 0.1, "beta": 0.5}),
        ("DB_MTL", {"DB_beta": 0.5, "DB_beta_sigma": 0.2}, {"beta": 0.5, "sigma": 0.2}),
        ("STCH", {"STCH_mu": 0.5, "STCH_warmup_epoch": 1}, {"mu": 0.5, "warmup_epochs": 2}),
        ("ExcessMTL", {"robust_step_size": 0.1}, {"step_size": 0.1, "first_step": "keep"}),
        ("FairGrad", {"FairGrad_alpha": 2.0}, {"alpha": 2.0, "max_norm": None}),
        ("UPGrad", {"UPGrad_norm_eps": 1e-3, "UPGrad_reg_eps": 1e-2}, {"reg_eps": 1e-2}),
    ],
)
def test_weight_args_have_libmtls_names(name, weight_args, expected):
    libmtl.accelerate()
    made = trainer(name, weight_args=weight_args)
    made.step(batches(made, 1))
    method = made.model.mtl_ext_method
    assert {option: getattr(method, option) for option in expected} == expected
    made.step(batches(made, 1))
    assert made.model.mtl_ext_method is method


def test_unknown_weight_args_are_refused():
    libmtl.accelerate()
    made = trainer("CAGrad", weight_args={"c": 0.3})
    with pytest.raises(ValueError, match=r"weight_args has \['c'\], CAGrad expects some of \['calpha', 'rescale'\]"):
        made.step(batches(made, 1))


def test_layers_of_gradvac_are_the_modules_that_own_parameters():
    libmtl.accelerate()
    made = trainer("GradVac", weight_args={"GradVac_group_type": 1})
    made.step(batches(made, 1))
    assert [len(group) for group in made.model.mtl_ext_method.groups] == [2, 2]
    assert made.model.mtl_ext_method.target.shape == (2, 2, 2)
    made = trainer("GradVac", weight_args={"GradVac_group_type": 3})
    with pytest.raises(ValueError, match="GradVac_group_type is 3, expected one of 0, 1, 2"):
        made.step(batches(made, 1))


@pytest.mark.parametrize("name", sorted(NO_REP))
def test_rep_grad_is_refused_where_it_means_nothing(name):
    libmtl.accelerate()
    with pytest.raises(ValueError, match=f"{name} needs the gradients of the shared parameters: rep_grad is True"):
        trainer(name, rep_grad=True)


def test_trained_weights_are_parameters_of_the_model():
    libmtl.accelerate()
    made = trainer("UW")
    before = made.model.mtl_ext_method.log_variances.clone()
    made.step(batches(made, 1))
    assert "mtl_ext_method.log_variances" in dict(made.model.named_parameters())
    assert (made.model.mtl_ext_method.log_variances != before).all()


def test_epochs_reach_the_method():
    libmtl.accelerate()
    made = trainer("DWA")
    history = made.train(batches(made, 2), 4)
    means = [sum(losses.numpy() for losses, _ in history[2 * e : 2 * e + 2]) / 2 for e in range(4)]
    np.testing.assert_array_equal(history[3][1], [1, 1])
    scores = np.exp(means[2] / means[1] / 2)
    np.testing.assert_allclose(history[7][1], 2 * scores / scores.sum())


def test_stch_leaves_its_warm_up_after_libmtls_epoch():
    libmtl.accelerate()
    made = trainer("STCH", weight_args={"STCH_warmup_epoch": 1})
    history = made.train(batches(made, 2), 3)
    np.testing.assert_allclose(history[3][1], 1 / history[3][0].numpy())
    nadir = (history[2][0] + history[3][0]).numpy() / 2
    np.testing.assert_allclose(history[4][1], 2 / history[4][0].numpy() * shares(history[4][0].numpy() / nadir))


def shares(values):
    return values / values.sum()


def test_famo_takes_its_second_look():
    libmtl.accelerate()
    made = trainer("FAMO", weight_args={"FAMO_w_lr": 0.1})
    made.train(batches(made, 2), 1)
    logits = made.model.mtl_ext_method.logits
    assert logits.abs().max() > 0.05
    assert made.model.mtl_ext_method.adam.steps == 2


def test_a_weighting_of_ones_own_name(peer):
    peer.ConFIG = libmtl.weighting("ConFIG", lambda model: methods.ConFIG())
    made = trainer("ConFIG")
    (batch,) = batches(made, 1)
    _, jacobian, _, _ = gradients(made, batch)
    made.step([batch], step=False)
    cosines = jacobian @ found_gradients(made)[0] / np.linalg.norm(jacobian, axis=1)
    assert cosines[0] == pytest.approx(cosines[1])
    peer.Trimmed = libmtl.weighting("Trimmed", lambda model: methods.TrimmedMean())
    made = trainer("Trimmed", rep_grad=True)
    with pytest.raises(ValueError, match=r"sums over the batch, .* use rep_grad=False"):
        made.step([batch])


def test_nan_names_the_task():
    libmtl.accelerate()
    made = trainer("PCGrad")
    (batch,) = batches(made, 1)
    batch["task1"] = batch["task1"] * torch.nan
    with pytest.raises(methods.NonFiniteError, match=r"losses\['task1'\] is nan"):
        made.step([batch])


def test_representations_of_different_shape_are_refused():
    libmtl.accelerate()
    model = trainer("MGDA", rep_grad=True, multi_input=True).model
    model.rep = {"task0": torch.randn(3, 5, requires_grad=True), "task1": torch.randn(3, 4, requires_grad=True)}
    model.rep_tasks = {task: rep.detach().clone().requires_grad_() for task, rep in model.rep.items()}
    losses = torch.stack([copy.square().sum() for copy in model.rep_tasks.values()])
    with pytest.raises(ValueError, match=r"rep has shapes \[\[5\], \[4\]\] behind the batch"):
        model.backward(losses)


# Patching


def test_restore_gives_everything_back(peer):
    before = dict(vars(peer)), dict(vars(peer.AbsWeighting))
    report = libmtl.accelerate(skip=["GradNorm"])
    assert libmtl.accelerate() is report
    assert peer.PCGrad is not before[0]["PCGrad"]
    assert peer.PCGrad.__name__ == "PCGrad"
    assert peer.GradNorm is before[0]["GradNorm"]
    assert peer.AbsWeighting._compute_grad is not before[1]["_compute_grad"]
    assert report.left_alone == {"Exotic": "no method here; it inherits the gradient collection", "GradNorm": "skipped"}
    made = trainer("PCGrad")
    made.step(batches(made, 1))
    assert report.calls["PCGrad"] == 1
    libmtl.restore()
    assert (dict(vars(peer)), dict(vars(peer.AbsWeighting))) == before


def test_unknown_names_cannot_be_skipped():
    with pytest.raises(ValueError, match=r"skip has \['PCGard'\], expected some of \['EW'"):
        libmtl.accelerate(skip=["PCGard"])


@pytest.mark.parametrize("mode", ["backward", "autograd"])
@pytest.mark.parametrize("rep_grad", [False, True])
def test_weightings_of_ones_own_get_the_same_gradients_without_the_cpu(peer, monkeypatch, mode, rep_grad):
    monkeypatch.setattr(peer.Exotic, "mode", mode)
    made = trainer("Exotic", 3, rep_grad)
    (batch,) = batches(made, 1)
    jacobian = gradients(made, batch)[1]
    libmtl.accelerate()
    monkeypatch.setattr(peer.AbsWeighting, "_grad2vec", None)
    losses = made.losses(batch)
    made.model.backward(losses)
    np.testing.assert_allclose(
        torch.cat([p.grad.flatten() for p in made.model.encoder.parameters()]), jacobian.mean(0), rtol=1e-9
    )
    assert (made.model.decoders["task0"].weight.grad is None) == (mode == "autograd")
    with pytest.raises(ValueError, match="mode is 'jvp', expected 'backward' or 'autograd'"):
        made.model._compute_grad(losses, "jvp")


def test_a_missing_libmtl_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "LibMTL.weighting", None)
    with pytest.raises(ImportError, match=r"works with LibMTL's git main .*, which cannot be imported"):
        libmtl.accelerate()


def test_another_version_is_refused(peer, monkeypatch):
    monkeypatch.setattr(peer.AbsWeighting, "_reset_grad", lambda self: None)
    with pytest.raises(ImportError, match=r"AbsWeighting\._reset_grad with parameters \['self'\], expected"):
        libmtl.accelerate()


def test_nothing_of_libmtl_is_imported_early():
    program = "import sys, mtl_ext.adapters.libmtl; sys.exit('LibMTL' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
