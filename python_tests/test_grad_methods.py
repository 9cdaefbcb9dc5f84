"""Methods that combine gradients: several steps, equality with TorchJD, and what no row covers."""

import numpy as np
import pytest
import torch
from gradient_cases import on_the_simplex
from nets import TwoHeads, forward
from test_methods import combined

from mtl_ext import methods, ops
from mtl_ext.methods import DBMTL, PCD, ConFIG, ExcessMTL, GradDrop, Krum, MoCo, MoDo, SDMGrad, TrimmedMean
from mtl_ext.methods.pcd import nearest_with_progress
from mtl_ext.ops.philox import philox_uniform

STATEFUL = (MoCo, DBMTL, ExcessMTL)


@pytest.fixture
def torchjd():
    return pytest.importorskip("torchjd.aggregation")


def matrix(seed, rows=5, columns=7, dtype=torch.float64):
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def positive(seed, size=5):
    return 0.1 + torch.rand(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_batches(method, jacobians):
    """The combined gradient of three batches with given Jacobians, and the weights."""
    x = torch.zeros(jacobians[0].shape[1], dtype=jacobians[0].dtype, requires_grad=True)
    weights = method.backward([jacobian @ x + 1 for jacobian in jacobians], shared=[x])
    return x.grad, weights


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_config_equals_torchjd(torchjd, dtype):
    for seed in range(20):
        jacobian = matrix(seed, dtype=dtype)
        preference = positive(seed).tolist()
        for mine, peer in (
            (ConFIG(), torchjd.ConFIG()),
            (ConFIG(preference=preference), torchjd.ConFIG(torch.tensor(preference, dtype=dtype))),
        ):
            tolerance = 1e-9 if dtype == torch.float64 else 1e-4
            torch.testing.assert_close(combined(mine, jacobian)[0], peer(jacobian), rtol=tolerance, atol=tolerance)


def test_config_has_equal_cosines_and_says_when_there_are_none():
    jacobian = matrix(1)
    grad, _ = combined(ConFIG(), jacobian)
    cosines = jacobian @ grad / jacobian.norm(dim=1) / grad.norm()
    torch.testing.assert_close(cosines, cosines[:1].expand(5))
    opposite = torch.stack([jacobian[0], -3 * jacobian[0]])
    assert torch.equal(combined(ConFIG(), opposite)[0], torch.zeros(7, dtype=torch.float64))
    duplicate = jacobian[[0, 0, 1]]
    grad, _ = combined(ConFIG(), duplicate)
    assert abs((jacobian[0] @ grad) / jacobian[0].norm() - (jacobian[1] @ grad) / jacobian[1].norm()) < 1e-9


@pytest.mark.parametrize("trim_number", [0, 1, 2])
def test_trimmed_mean_equals_torchjd(torchjd, trim_number):
    for dtype in (torch.float64, torch.float32):
        jacobian = matrix(trim_number, dtype=dtype)
        expected = torchjd.TrimmedMean(trim_number)(jacobian)
        torch.testing.assert_close(combined(TrimmedMean(trim_number=trim_number), jacobian)[0], expected)
        grad, weights = combined(TrimmedMean(trim_number=trim_number, reduction="sum"), jacobian)
        torch.testing.assert_close(grad, 5 * expected)
        assert weights.tolist() == [1.0] * 5
    with pytest.raises(ValueError, match="losses has 5 tasks, expected at least 7 for trim_number = 3"):
        combined(TrimmedMean(trim_number=3), jacobian)


def test_krum_equals_torchjd(torchjd):
    for seed in range(20):
        jacobian = matrix(seed, rows=8)
        for bad, selected in ((0, 1), (1, 1), (2, 3), (5, 8)):
            expected = torchjd.KrumWeighting(bad, selected)(jacobian @ jacobian.T)
            _, weights = combined(Krum(n_byzantine=bad, n_selected=selected), jacobian)
            torch.testing.assert_close(weights, expected)
    with pytest.raises(ValueError, match="losses has 5 tasks, expected at least 6 for n_byzantine = 3"):
        combined(Krum(n_byzantine=3), matrix(0))
    with pytest.raises(ValueError, match="losses has 5 tasks, expected at least 6 for n_byzantine = 0 and n_selected"):
        combined(Krum(n_selected=6), matrix(0))


def test_random_weights_equal_torchjd(torchjd):
    jacobian = matrix(0, dtype=torch.float32)
    torch.manual_seed(3)
    expected = torchjd.Random()(jacobian)
    grad, _ = combined(methods.RGW(generator=torch.Generator().manual_seed(3)), jacobian)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("leak", [None, [0.0, 0.3, 1.0, 0.5, 0.1]])
def test_graddrop_operator_equals_torchjd(torchjd, leak):
    jacobian = matrix(2, columns=1000, dtype=torch.float32)
    peer = torchjd.GradDrop(leak=None if leak is None else torch.tensor(leak))
    torch.manual_seed(4)
    expected = peer(jacobian)
    torch.manual_seed(4)
    uniform = [torch.rand(1000)]
    leaks = None if leak is None else torch.tensor(leak, dtype=torch.float64)
    (result,) = ops.graddrop(list(jacobian), 5, uniform=uniform, leak=leaks)
    torch.testing.assert_close(result, expected)


def test_graddrop_draws_a_step_per_call_that_combines():
    jacobian = matrix(5, columns=400)
    method = GradDrop(seed=9, f="sigmoid", kappa=0.7, leak=[0.0, 0.2, 0.4, 0.6, 0.8])
    leak = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    for step in range(3):
        seed = torch.tensor([9, step])
        (expected,) = ops.graddrop(list(jacobian), 5, seed=seed, leak=leak, sigmoid=True, kappa=0.7)
        assert torch.equal(combined(method, jacobian)[0], expected)
    method.nonfinite = "skip"
    combined(method, jacobian * torch.nan)
    with pytest.raises(ValueError, match="losses has 4 tasks, expected len"):
        combined(method, jacobian[:4])
    assert method.seed.tolist() == [9, 5]


def test_graddrop_can_keep_the_norm():
    jacobian = matrix(6, columns=50)
    plain, _ = combined(GradDrop(seed=1), jacobian)
    kept, _ = combined(GradDrop(seed=1, keep_grad_norm=True), jacobian)
    torch.testing.assert_close(kept, plain * jacobian.sum(0).norm() / plain.norm())
    mean, _ = combined(GradDrop(seed=1, reduction="mean"), jacobian)
    torch.testing.assert_close(mean, plain / 5)
    opposite = torch.stack([jacobian[0], -jacobian[0]])
    assert combined(GradDrop(keep_grad_norm=True), opposite)[0].norm() < 1e-12


@pytest.mark.parametrize("keep_grad_norm", [False, True])
def test_graddrop_on_features_lets_the_batch_decide(keep_grad_norm):
    net, plain = TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)
    z, losses = net()
    GradDrop(seed=3, keep_grad_norm=keep_grad_norm).backward(losses, features=z)
    z, losses = plain()
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses.values()])
    marginal = (z.sign() * rows).sum(1)
    purity = (1 + marginal.sum(0) / marginal.abs().sum(0)) / 2
    passes = torch.where(purity > philox_uniform(torch.tensor([3, 0]), 0, torch.arange(5)), marginal > 0, marginal < 0)
    cotangent = (passes[:, None] * rows).sum(0)
    z.backward(cotangent * (rows.sum(0).norm() / cotangent.norm() if keep_grad_norm else 1))
    for p, q in zip(net.trunk.parameters(), plain.trunk.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def moco_steps(jacobians, losses, beta=0.5, sigma=0.5, gamma=0.1, sigma_gamma=0.5, rho=0.0):
    """An independent derivation with whole matrices."""
    averages, weights = np.zeros_like(jacobians[0]), np.full(len(losses[0]), 1 / len(losses[0]))
    for t, (jacobian, values) in enumerate(zip(jacobians, losses, strict=True), start=1):
        target = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True) * values[:, None]
        averages = averages - beta / t**sigma * (averages - target)
        scores = weights - gamma / t**sigma_gamma * (averages @ averages.T + rho * np.eye(len(weights))) @ weights
        weights = np.exp(scores) / np.exp(scores).sum()
        yield weights @ averages


def db_mtl_steps(jacobians, losses, beta=0.9, sigma=0.0):
    averages = np.zeros_like(jacobians[0])
    for t, (jacobian, values) in enumerate(zip(jacobians, losses, strict=True), start=1):
        target = jacobian / (values + 1e-8)[:, None]
        averages = target + beta / t**sigma * (averages - target)
        norms = np.linalg.norm(averages, axis=1)
        yield norms.max() / norms @ averages


def excess_steps(jacobians, losses, step_size=1e-2):
    squares, first, weights = np.zeros_like(jacobians[0]), None, np.ones(len(losses[0]))
    for jacobian in jacobians:
        squares = squares + jacobian**2
        risks = (jacobian**2 / np.sqrt(squares + 1e-7)).sum(1)
        if first is None:
            first = risks
        else:
            weights = weights * np.exp(step_size * risks / first)
            weights = weights / weights.sum() * len(weights)
        yield weights @ jacobian


@pytest.mark.parametrize(
    ("method", "options", "steps"),
    [
        (MoCo, {}, moco_steps),
        (MoCo, {"beta": 0.3, "sigma": 0.2, "gamma": 0.4, "sigma_gamma": 0.9, "rho": 0.5}, moco_steps),
        (DBMTL, {}, db_mtl_steps),
        (DBMTL, {"beta": 0.5, "sigma": 0.7}, db_mtl_steps),
        (ExcessMTL, {}, excess_steps),
        (ExcessMTL, {"step_size": 0.3}, excess_steps),
    ],
)
def test_stateful_methods_follow_their_formula_over_several_steps(method, options, steps):
    jacobians, losses = [matrix(seed) for seed in range(6)], [positive(seed) for seed in range(6)]
    mine = method(5, **options)
    expected = steps([j.numpy() for j in jacobians], [values.numpy() for values in losses], **options)
    for jacobian, values, target in zip(jacobians, losses, expected, strict=True):
        np.testing.assert_allclose(combined(mine, jacobian, values)[0].numpy(), target, rtol=1e-12)


@pytest.mark.parametrize("warmup", [0, 3])
def test_excess_mtl_equals_torchjd(torchjd, warmup):
    mine = ExcessMTL(5, first_step="raw", warmup=warmup, step_size=0.5)
    peer = torchjd.ExcessMTL(0.5, n_warmup_steps=warmup)
    for seed in range(7):
        jacobian = 0.3 * matrix(seed)
        torch.testing.assert_close(combined(mine, jacobian)[0], peer(jacobian))


def test_excess_mtl_can_warm_up_and_keep():
    method = ExcessMTL(5, warmup=2)
    for seed in range(3):
        _, weights = combined(method, matrix(seed))
        assert (weights.tolist() == [1.0] * 5) == (seed < 2)
    assert weights.sum().item() == pytest.approx(5)


@pytest.mark.parametrize("method", STATEFUL)
def test_state_of_half_gradients_is_float32(method):
    half, full = method(5), method(5)
    for seed in range(3):
        jacobian = matrix(seed, dtype=torch.bfloat16)
        result = combined(half, jacobian)[0]
        expected = combined(full, jacobian.float(), torch.arange(1.0, 6.0))[0]
        assert result.dtype == torch.bfloat16
        torch.testing.assert_close(result.float(), expected, rtol=0.01, atol=0.01)
    assert {buffer.dtype for buffer in half.buffers()} == {torch.float32, torch.float64}


@pytest.mark.parametrize("method", STATEFUL)
def test_a_bad_step_leaves_the_state_alone(method):
    skipping, plain = method(5, nonfinite="skip"), method(5)
    for seed in range(3):
        assert torch.equal(combined(skipping, matrix(seed))[0], combined(plain, matrix(seed))[0])
        bad = matrix(seed)
        bad[1, 2] = torch.inf
        x = torch.zeros(7, dtype=torch.float64, requires_grad=True)
        losses = (bad.nan_to_num(posinf=1.0) @ x + 1).unbind()
        losses = [losses[0], (x[2].abs() + x.sum() * 0).sqrt() + 1, *losses[2:]]  # infinite slope at 0
        assert skipping.backward(losses, shared=[x]).tolist() == [0.0] * 5


@pytest.mark.parametrize("method", [*STATEFUL, PCD, MoDo, SDMGrad])
@pytest.mark.parametrize("scaled", [False, True])
def test_infinite_gradients_that_propagate_leave_the_state_alone(method, scaled):
    x = torch.ones(3, requires_grad=True)

    def losses():
        return None, {"fine": x.sum(), "depth": (x - 1).abs().sqrt().sum()}  # infinite slope at 1

    method = method(2, nonfinite="raise" if scaled else "propagate")
    state = {key: value.clone() for key, value in method.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0) if scaled else None
    weights = method.backward(forward(method, losses)[1], shared=[x], scaler=scaler)
    assert weights.isnan().all()
    assert not x.grad.isfinite().all()
    after = method.state_dict()
    assert all(torch.equal(after[key], value) for key, value in state.items())
    assert not any(after[key].any() for key in after.keys() - state.keys())


@pytest.mark.parametrize("method", STATEFUL)
def test_state_fits_one_shape_only(method):
    used = method(5)
    combined(used, matrix(0))
    with pytest.raises(ValueError, match=r"of shape \[8\] in place of \[7\]: features= needs samples of one shape"):
        combined(used, matrix(0, columns=8))
    with pytest.raises(ValueError, match="losses has 4 tasks, expected num_tasks = 5"):
        combined(used, matrix(0, rows=4))


def step_on_features(method, rows, step, columns=4):
    """One step on a batch of some of six places; the combined gradient [rows, columns] of leaf features."""
    grads = matrix(step, rows=2 * 6, columns=columns).reshape(2, 6, columns)[:, rows]
    z = torch.zeros(len(grads[0]), columns, dtype=torch.float64, requires_grad=True)
    method.backward([(grad * z).sum() + 1 + k for k, grad in enumerate(grads)], features=z)
    return z.grad


@pytest.mark.parametrize("method", STATEFUL)
def test_state_at_features_belongs_to_places_in_the_batch(method):
    """A smaller batch leaves the state of the places that it lacks alone; a larger one adds places."""
    used, fresh = method(2), method(2)
    sizes = [slice(0, 4), slice(0, 6), slice(0, 3), slice(0, 6)]
    for step, rows in enumerate(sizes):
        before = {key: value.clone() for key, value in used.state_dict().items() if "." in key}
        grad = step_on_features(used, rows, step)
        assert grad.isfinite().all()
        after = {key: value for key, value in used.state_dict().items() if "." in key}
        assert [len(value) for value in after.values()] == [4 if step == 0 else 6] * 2
        for key, value in before.items():
            assert torch.equal(after[key][rows.stop : len(value)], value[rows.stop :])
            assert not torch.equal(after[key][: rows.stop], value[: rows.stop])
        if step == 2:
            fresh.load_state_dict(used.state_dict())
    assert torch.equal(step_on_features(fresh, sizes[3], 3), grad)
    with pytest.raises(ValueError, match=r"of shape \[6, 5\] in place of \[6, 4\]: features= needs"):
        step_on_features(used, slice(0, 6), 4, columns=5)


@pytest.mark.parametrize("method", STATEFUL)
def test_an_untouched_parameter_keeps_no_grad(method):
    x, idle = (torch.zeros(7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    method(5).backward(matrix(0) @ x + 1, shared=[x, idle])
    assert x.grad is not None
    assert idle.grad is None


def test_modo_and_sdmgrad_equal_torchjd_and_their_formula(torchjd):
    modo, sdmgrad = MoDo(5, gamma=0.02, rho=0.3), SDMGrad(5, lam=0.6, lr=2.0, iterations=7)
    peers = torchjd.MoDoWeighting(0.02, 0.3), torchjd.SDMGradWeighting(2.0, 0.5, 7, 0.6)
    kept, pulled = np.full(5, 0.2), np.full(5, 0.2)
    for seed in range(5):
        shared = matrix(100 + seed)
        jacobians = [shared + 0.3 * matrix(3 * seed + batch) for batch in range(3)]
        products = jacobians[0] @ jacobians[1].T
        grad, weights = with_batches(modo, jacobians)
        torch.testing.assert_close(weights, peers[0](products))
        torch.testing.assert_close(grad, weights @ jacobians[2])
        kept = on_the_simplex(kept - 0.02 * (products.numpy() @ kept + 0.3 * kept))
        np.testing.assert_allclose(weights.numpy(), kept, atol=1e-12)
        jacobians, products = [1e3 * jacobian for jacobian in jacobians], 1e6 * products
        _, weights = with_batches(sdmgrad, jacobians)
        torch.testing.assert_close(weights, peers[1](products), rtol=1e-6, atol=1e-7)  # the peer adds 1e-8
        normalised = products.numpy() / np.sqrt(np.maximum(products.diagonal().numpy(), 0)).mean() ** 2
        velocity = np.zeros(5)
        for _ in range(7):
            velocity = velocity / 2 + normalised @ (pulled + 0.6 / 5)
            pulled = on_the_simplex(pulled - 2.0 * velocity)
        np.testing.assert_allclose(weights.numpy(), (pulled + 0.12) / 1.6, atol=1e-10)


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_every_batch_is_judged(bad):
    net = TwoHeads()
    several = [net()[1] for _ in range(3)]
    several[bad]["class"] = several[bad]["class"] * torch.nan
    with pytest.raises(methods.NonFiniteError, match=r"losses\['class'\] is nan"):
        MoDo(2).backward(several, shared=net.shared())
    x = torch.ones(3, requires_grad=True)
    several = [{"fine": x.sum(), "depth": x.sum()} for _ in range(3)]
    several[bad]["depth"] = (x - 1).abs().sqrt().sum()
    with pytest.raises(methods.NonFiniteError, match=r"the gradient of losses\['depth'\]"):
        MoDo(2).backward(several, shared=[x])
    assert x.grad is None


def test_three_of_each_are_needed():
    net = TwoHeads()
    z, losses = net()
    with pytest.raises(ValueError, match="losses is dict, expected a sequence of 3: MoDo takes one for each of 3"):
        MoDo(2).backward(losses, shared=net.shared())
    with pytest.raises(ValueError, match="losses is 2 of them, expected a sequence of 3"):
        MoDo(2).backward([losses, losses], shared=net.shared())
    with pytest.raises(ValueError, match="features is Tensor, expected a sequence of 3"):
        MoDo(2).backward([losses] * 3, features=z)


def test_products_at_features_are_those_of_the_batch_sums():
    net = TwoHeads(dtype=torch.float64)
    parts = [slice(0, 5), slice(5, 9), slice(9, 12)]
    several = [torch.tanh(net.trunk(net.inputs[part])) for part in parts]
    losses = [net.losses_on(part, z) for part, z in zip(parts, several, strict=True)]
    rows = [
        torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].sum(0) for loss in batch.values()])
        for batch, z in zip(losses, several, strict=True)
    ]
    weights = MoDo(2, gamma=3.0).backward(losses, features=several)
    expected = on_the_simplex((0.5 - 3.0 * (rows[0] @ rows[1].T @ torch.tensor([0.5, 0.5]).double() + 0.05)).numpy())
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-12)


def test_pcd_equals_torchjd(torchjd):
    for tau in (0.02, 0.3):
        mine, peer = PCD(5, tau=tau, beta=0.9), torchjd.PCD(tau=tau, beta=0.9)
        for seed in range(10):
            jacobian = matrix(seed)
            torch.testing.assert_close(combined(mine, jacobian)[0], peer(jacobian), rtol=1e-6, atol=1e-8)


def test_pcd_solves_its_problem_exactly():
    for seed in range(20):
        jacobian = matrix(seed, rows=6) * torch.logspace(-2, 2, 6, dtype=torch.float64)[:, None]
        weights = nearest_with_progress(jacobian @ jacobian.T, 0.1, 1e-14)
        direction = weights @ jacobian
        slack = jacobian[1:] @ direction - 0.1 * jacobian[1:].square().sum(1)
        scale = jacobian[1:].norm(dim=1) * direction.norm()
        assert weights[0] == 1
        assert (slack >= -1e-6 * scale).all()
        assert (weights[1:] >= 0).all()
        assert (weights[1:] * slack <= 1e-6 * weights[1:] * scale).all()


def test_pcd_special_cases():
    jacobian = matrix(3, rows=3)
    infeasible = torch.stack([jacobian[0], jacobian[1], -jacobian[1]])
    torch.testing.assert_close(combined(PCD(3), infeasible)[0], jacobian[0])
    no_primary = torch.stack([torch.zeros_like(jacobian[0]), jacobian[1], jacobian[2]])
    assert combined(PCD(3), no_primary)[0].norm() == 0
    opposed = torch.stack([jacobian[0], -jacobian[0]])
    torch.testing.assert_close(combined(PCD(2), opposed)[0], -jacobian[0])
    assert combined(PCD(2, tau=0.0), opposed)[0].norm() < 1e-7


def test_pcd_takes_names_and_sums_several_primaries():
    jacobian = matrix(4, rows=4)
    x = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    losses = dict(zip("abcd", jacobian @ x, strict=True))
    PCD(4, primary=["c", "a"], tau=0.2).backward(losses, shared=[x])
    merged = torch.stack([jacobian[0] + jacobian[2], jacobian[1], jacobian[3]])
    torch.testing.assert_close(x.grad, combined(PCD(3, tau=0.2), merged)[0])
    with pytest.raises(ValueError, match=r"primary is \['e'\], expected names or indices of the losses \['a', 'b'"):
        PCD(4, primary="e").backward(dict(zip("abcd", jacobian @ x, strict=True)), shared=[x])
