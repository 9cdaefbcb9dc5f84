"""Methods with a primary task: GCS and OL-AUX against their formulas in numpy, and what all of them share."""

import numpy as np
import pytest
import torch
from nets import TwoHeads

from mtl_ext.methods import CRMOGM, GCS, IAL, OLAUX

BUILD = {"GCS": GCS, "GCS weighted": lambda k, **o: GCS(k, weighted=True, **o), "IAL": IAL, "OLAUX": OLAUX}
NAMES = ["depth", "normals", "seg", "edges"]


def jacobian(seed, tasks=4):
    return torch.randn(tasks, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def call(method, rows, names=None):
    """The combined gradient and the weights of one call with given per-task gradients."""
    x = torch.zeros(rows.shape[1], dtype=torch.float64, requires_grad=True)
    losses = rows @ x + torch.linspace(0.5, 1.5, len(rows), dtype=torch.float64)
    weights = method.backward(losses if names is None else dict(zip(names, losses, strict=True)), shared=[x])
    return x.grad, weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("primary", [[0], [2], [1, 3]])
def test_gcs_takes_what_agrees_with_the_primary_gradient(weighted, primary):
    seen = set()
    for seed in range(10):
        rows = jacobian(seed)
        grad, weights = call(GCS(4, primary=primary, weighted=weighted), rows)
        rows = rows.numpy()
        main = rows[primary].sum(0)
        expected = main.copy()
        for k in set(range(4)) - set(primary):
            cosine = main @ rows[k] / np.linalg.norm(main) / np.linalg.norm(rows[k])
            expected += (max(0.0, cosine) if weighted else float(cosine > 0)) * rows[k]
            seen.add(cosine > 0)
        np.testing.assert_allclose(grad.numpy(), expected, rtol=1e-12, atol=1e-12)
        assert (weights[primary] == 1).all()
    assert seen == {True, False}


def test_ol_aux_moves_its_weights_by_the_products_of_five_steps():
    method = OLAUX(4, primary=1, lr=0.02)
    weights, total = np.array([0.1, 1.0, 0.1, 0.1]), np.zeros(4)
    lowest = 1.0
    for step in range(1, 31):
        rows = jacobian(step)
        grad, found = call(method, rows)
        np.testing.assert_allclose(found.numpy(), weights, rtol=1e-12)
        np.testing.assert_allclose(grad.numpy(), weights @ rows.numpy(), rtol=1e-12, atol=1e-12)
        total += rows.numpy() @ rows[1].numpy()
        if step % 5 == 0:
            weights = np.maximum(0.0, weights + 0.02 * total)
            weights[1], total = 1.0, np.zeros(4)
            lowest = min(lowest, weights.min())
    assert lowest == 0.0
    assert sorted(weights)[-2] > 0.4


def test_ol_aux_raises_helpful_tasks_and_drops_harmful_ones_which_may_return():
    rows = torch.tensor([[1.0, 0.0], [0.5, 1.0], [-1.0, 0.2]], dtype=torch.float64)
    method = OLAUX(3, lr=0.05, interval=2)
    for _ in range(10):
        call(method, rows)
    assert method.weights[1] > 0.3
    assert method.weights[2] == 0
    for _ in range(2):
        call(method, rows * torch.tensor([[1.0], [1.0], [-1.0]]))
    assert method.weights[2] == pytest.approx(0.1)


def test_ol_aux_goes_on_from_its_state_between_updates_and_takes_no_notice_of_bad_steps():
    used, fresh = OLAUX(4, lr=0.02, interval=3, nonfinite="propagate"), OLAUX(4, lr=0.02, interval=3)
    for step in range(4):
        call(used, jacobian(step))
    fresh.load_state_dict(used.state_dict())
    call(used, jacobian(4) * torch.nan)
    for step in range(4, 9):
        assert torch.equal(call(used, jacobian(step))[1], call(fresh, jacobian(step))[1])


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_a_primary_task_has_a_name_or_an_index(build):
    for step in range(3):
        rows = jacobian(step)
        by_name = call(build(4, primary=["normals", "edges"]), rows, NAMES)
        by_index = call(build(4, primary=[1, 3]), rows)
        assert all(torch.equal(a, b) for a, b in zip(by_name, by_index, strict=True))
    with pytest.raises(ValueError, match=r"primary is \['flow'\], expected names or indices of the losses \['depth'"):
        call(build(4, primary="flow"), rows, NAMES)
    with pytest.raises(ValueError, match="losses has 4 tasks, expected num_tasks = 3"):
        call(build(3), rows)


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
def test_without_a_primary_gradient_nothing_is_trained_and_an_absent_task_weighs_nothing(build):
    rows = jacobian(0)
    rows[2] = 0
    assert (call(build(4), rows)[1][2] == 0) == (build is not OLAUX)
    if build is not OLAUX:  # whose weights do not depend on the step's gradients
        assert (call(build(4, primary=2), rows)[0] == 0).all()


@pytest.mark.parametrize("build", [GCS, OLAUX])
def test_their_weights_can_be_averaged(build):
    average, plain = CRMOGM(build(4, primary=1), alpha=0.5), build(4, primary=1)
    first = call(plain, jacobian(0))[1]
    assert torch.equal(call(average, jacobian(0))[1], first)
    torch.testing.assert_close(call(average, jacobian(1))[1], (first + call(plain, jacobian(1))[1]) / 2)


@pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)
@pytest.mark.parametrize("level", ["shared", "features"])
def test_a_broken_auxiliary_head_stays_as_it_is_and_is_weighed_as_any_other(build, level):
    """The paper's experiment with a fixed depth head: frozen parameters in one of the heads."""
    net, plain = TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)
    net.heads["class"].requires_grad_(False)
    method = build(2)
    before = net.heads["class"].weight.clone()
    optimizer = torch.optim.SGD([*net.parameters(), *method.parameters()], lr=0.1)
    for _ in range(3):
        plain.load_state_dict(net.state_dict())
        z, losses = net()
        optimizer.zero_grad()
        weights = method.backward(losses, **({"shared": net.shared()} if level == "shared" else {"features": z}))
        trunk = plain.naive_gradients(list(plain.trunk.parameters()), plain()[1])
        for param, first, second in zip(net.trunk.parameters(), *trunk, strict=True):
            torch.testing.assert_close(param.grad, weights[0] * first + weights[1] * second)
        optimizer.step()
    assert torch.equal(net.heads["class"].weight, before)
    assert net.heads["class"].weight.grad is None
    assert not torch.equal(net.heads["sum"].weight, TwoHeads(dtype=torch.float64).heads["sum"].weight)
