"""Methods on the Gram matrix: what they promise beyond their rows, and equality with peers where those are right."""

import numpy as np
import pytest
import torch
from nets import TwoHeads
from test_methods import combined

from mtl_ext import methods


def jacobians(count=20, num_tasks=5, columns=9):
    for seed in range(count):
        yield torch.randn(num_tasks, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("build", [methods.UPGrad, methods.DualProj])
def test_projections_conflict_with_no_gradient(build):
    for jacobian in jacobians(columns=4):
        for scale in (1e-9, 1.0, 1e9):
            grad, _ = combined(build(), jacobian * scale)
            cosines = jacobian @ grad / jacobian.norm(dim=1) / grad.norm().clamp_min(1e-300)
            assert cosines.min() >= -1e-8


def test_nash_weights_solve_the_bargaining_equation():
    for jacobian in jacobians():
        method = methods.NashMTL(5, max_norm=None)
        _, weights = combined(method, jacobian)
        assert (weights > 0).all()
        torch.testing.assert_close(jacobian @ jacobian.T @ weights, 1 / weights, rtol=1e-8, atol=0.0)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    method = methods.NashMTL(2)
    grad, _ = combined(method, opposite)
    assert method.status == 1
    assert (grad == 0).all()


def test_nash_keeps_its_weights_between_updates():
    method, first, second = methods.NashMTL(5, update_every=2, max_norm=None), *jacobians(2)
    _, weights = combined(method, first)
    assert torch.equal(combined(method, second)[1], weights)
    assert not torch.equal(combined(method, second)[1], weights)


def test_fairgrad_solves_its_equation():
    for alpha in (0.5, 2.0):
        for jacobian in jacobians(5):
            _, weights = combined(methods.FairGrad(alpha=alpha, max_norm=None, reduction="mean"), jacobian)
            torch.testing.assert_close(jacobian @ jacobian.T @ weights, weights ** (-1 / alpha), rtol=1e-7, atol=0.0)


def test_bounded_combinations_have_the_bound_as_length():
    for jacobian in jacobians(5):
        for method in (methods.NashMTL(5), methods.FairGrad()):
            assert combined(method, jacobian)[0].norm().item() == pytest.approx(1.0)


def test_imtlg_projects_equally_on_all_directions():
    for jacobian in jacobians():
        grad, weights = combined(methods.IMTLG(), jacobian)
        projections = jacobian @ grad / jacobian.norm(dim=1)
        torch.testing.assert_close(projections, projections[:1].expand(5))
        assert weights.sum().item() == pytest.approx(1.0)


def test_imtl_trains_its_scales_and_weighs_heads_by_them():
    net, method = TwoHeads(), methods.IMTL(2)
    with torch.no_grad():
        method.log_scales.copy_(torch.tensor([0.5, -0.25]))
    z, losses = net()
    method.backward(losses, features=z)
    values = torch.stack([loss.detach() for loss in losses.values()])
    torch.testing.assert_close(method.log_scales.grad, method.log_scales.detach().exp() * values - 1)
    plain = TwoHeads()
    z, losses = plain()
    methods.IMTLG().backward(losses, features=z)
    for (task, head), scale in zip(net.heads.items(), method.log_scales.exp(), strict=True):
        for p, q in zip(head.parameters(), plain.heads[task].parameters(), strict=True):
            torch.testing.assert_close(p.grad, scale * q.grad)


@pytest.mark.parametrize("groups", ["model", "tensor", "lists"])
def test_gradvac_works_by_groups(groups):
    """Each group by itself equals GradVac of a network that has no other parameters."""
    draw = torch.Generator().manual_seed(4)
    shapes = [(3, 4), (5,), (2, 2)]
    rows = [[torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes] for _ in range(4)]
    params = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    parts = {"model": [[0, 1, 2]], "tensor": [[0], [1], [2]], "lists": [[0, 2], [1]]}[groups]
    option = [[params[p] for p in part] for part in parts] if groups == "lists" else groups
    method = methods.GradVac(4, groups=option, seed=9)
    alone = [methods.GradVac(4, seed=9) for _ in parts]
    for _ in range(3):
        for param in params:
            param.grad = None
        losses = [sum((g * p).sum() for g, p in zip(row, params, strict=True)) for row in rows]
        method.backward(losses, shared=params)
        for part, single in zip(parts, alone, strict=True):
            jacobian = torch.stack([torch.cat([row[p].flatten() for p in part]) for row in rows])
            expected, _ = combined(single, jacobian)
            torch.testing.assert_close(torch.cat([params[p].grad.flatten() for p in part]), expected)
    fresh = methods.GradVac(4, groups=option)
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.target, method.target)


def test_gradvac_names_parameters_that_no_group_has():
    net = TwoHeads()
    method = methods.GradVac(2, groups=[net.trunk.parameters()])
    with pytest.raises(ValueError, match=r"groups lacks the shared parameters number \[4\]"):
        method.backward(net()[1], shared=net.shared())


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("AlignedMTL", lambda: methods.AlignedMTL(reduction="mean")),
        ("CAGrad", lambda: methods.CAGrad(c=0.4, rescale=0, reduction="mean")),
        ("DualProj", lambda: methods.DualProj(reg_eps=1e-4)),
        ("FairGrad", lambda: methods.FairGrad(alpha=1.0, max_norm=None, reduction="mean")),
        ("IMTLG", methods.IMTLG),
        ("UPGrad", lambda: methods.UPGrad(reg_eps=1e-4)),
    ],
)
def test_torchjd_agrees_where_it_is_right(name, build):
    aggregation = pytest.importorskip("torchjd.aggregation")
    options = {"CAGrad": {"c": 0.4}, "FairGrad": {"alpha": 1.0}}.get(name, {})
    peer = getattr(aggregation, name)(**options)
    for jacobian in jacobians(10, num_tasks=4):
        grad, _ = combined(build(), jacobian)
        np.testing.assert_allclose(grad.numpy(), peer(jacobian).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["CRMOGM", "GradVac", "PCGrad"])
def test_torchjd_agrees_for_the_same_draws_over_steps(name):
    aggregation = pytest.importorskip("torchjd.aggregation")
    if name == "CRMOGM":
        mine = methods.CRMOGM(methods.UPGrad(reg_eps=1e-4), alpha=0.7)
        weighting = aggregation.CRMOGMWeighting(aggregation.UPGradWeighting(), alpha=0.7)

        def peer(jacobian):
            return weighting(jacobian @ jacobian.T) @ jacobian

    else:
        mine = methods.GradVac(5, seed=3) if name == "GradVac" else methods.PCGrad(seed=3)
        peer = getattr(aggregation, name)()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for jacobian in jacobians(5):
            grad, _ = combined(mine, jacobian)
            np.testing.assert_allclose(grad.numpy(), peer(jacobian).numpy(), rtol=1e-3, atol=1e-4)
