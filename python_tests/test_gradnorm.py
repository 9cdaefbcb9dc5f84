"""Methods whose weights of gradients have a history: GradNorm, and the moving average of another method's."""

import numpy as np
import pytest
import torch
from nets import TwoHeads

from mtl_ext import methods


def call(method, jacobian, values):
    """One call with given per-task gradients and losses: combined gradient and weights."""
    x = torch.zeros(jacobian.shape[1], dtype=jacobian.dtype, requires_grad=True)
    weights = method.backward(jacobian @ x + values, shared=[x])
    return x.grad, weights


def draws(count=8, tasks=3):
    generator = torch.Generator().manual_seed(1)
    jacobians = torch.randn(count, tasks, 5, dtype=torch.float64, generator=generator)
    jacobians *= torch.tensor([[1.0], [9.0], [0.2]])
    return jacobians, torch.rand(count, tasks, dtype=torch.float64, generator=generator) + 0.2


def test_gradnorm_minimises_the_papers_loss_by_autograd():
    jacobians, losses = draws()
    method = methods.GradNorm(3, alpha=0.7, lr=0.1)
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1, eps=1e-12)
    for jacobian, values in zip(jacobians, losses, strict=True):
        grad, weights = call(method, jacobian, values)
        torch.testing.assert_close(weights, w.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(grad, weights @ jacobian)
        norms = w * jacobian.norm(dim=1)
        rates = values / losses[0] / (values / losses[0]).mean()
        target = (norms.mean() * rates**0.7).detach()
        optimizer.zero_grad()
        ((norms - target).abs().sum() / norms.mean().detach()).backward()
        optimizer.step()
        with torch.no_grad():
            w.clamp_(min=1e-3).mul_(3 / w.sum())


def test_gradnorm_gives_slower_tasks_and_smaller_gradients_more():
    method = methods.GradNorm(2, lr=0.05)
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    for _ in range(200):
        _, weights = call(method, jacobian, torch.tensor([1.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(weights.numpy(), [1.6, 0.4], atol=0.1)  # equal norms
    for _ in range(200):
        _, slower = call(method, jacobian, torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert slower[1] > weights[1] + 0.1
    for _ in range(200):
        _, weights = call(method, jacobian, torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert (weights > 0).all()
    assert weights.sum().item() == pytest.approx(2)


def test_gradnorm_does_not_see_scale_nor_remember_what_is_not_finite():
    jacobians, losses = draws()
    plain, tiny = methods.GradNorm(3), methods.GradNorm(3)
    hurt = methods.GradNorm(3, nonfinite="propagate")
    for jacobian, values in zip(jacobians, losses, strict=True):
        _, weights = call(plain, jacobian, values)
        _, scaled = call(tiny, jacobian * 1e-12, values)
        _, after = call(hurt, jacobian, values)
        torch.testing.assert_close(scaled, weights)
        torch.testing.assert_close(after, weights)
        call(hurt, jacobian * torch.inf, values)
    assert call(plain, torch.zeros(3, 5, dtype=torch.float64), losses[0])[1].isfinite().all()


@pytest.mark.parametrize(
    ("layer", "used"),
    [("last", ["trunk.2.weight", "trunk.2.bias"]), ("all", None), ("given", ["trunk.0.weight", "trunk.2.bias"])],
)
def test_gradnorm_takes_norms_at_the_layer(layer, used):
    net = TwoHeads(dtype=torch.float64)
    _, losses = net()
    named = {name: p for name, p in net.named_parameters() if not name.startswith("heads")}
    # the adapter comes last and only one task reaches it: not the last layer that both share
    targets = list(named.values()) if used is None else [named[name] for name in used]
    rows = [torch.cat([g.flatten() for g in task]) for task in net.naive_gradients(targets, losses)]
    seen = []

    class Watched(methods.GradNorm):
        def task_weights(self, gram, losses):
            seen.append(gram.diagonal())
            return super().task_weights(gram, losses)

    method = Watched(2, layer=targets if layer == "given" else layer)
    method.backward(losses, shared=net.shared())
    torch.testing.assert_close(seen[0], torch.stack([row @ row for row in rows]))


def test_gradnorm_names_parameters_that_are_not_shared_and_falls_back_without_a_matrix():
    net = TwoHeads()
    method = methods.GradNorm(2, layer=net.heads["sum"].parameters())
    with pytest.raises(ValueError, match="layer holds 2 parameters, 0 of which are among shared"):
        method.backward(net()[1], shared=net.shared())
    method = methods.GradNorm(2)
    method.backward(net()[1], shared=[net.trunk[2].bias])
    assert (method.weights != 1).all()


def test_gradnorm_trains_features_of_own_inputs():
    net = TwoHeads()
    features, losses = net.own_inputs()
    method = methods.GradNorm(2)
    method.backward(losses, features=features)
    assert all(p.grad is not None for p in net.trunk.parameters())
    assert (method.weights != 1).all()


def test_gradnorm_weighs_heads_by_default():
    net, plain = TwoHeads(), TwoHeads()
    method = methods.GradNorm(2)
    method.weights.copy_(torch.tensor([0.5, 1.5]))
    method.backward(net()[1], shared=net.shared())
    losses = plain()[1]
    (0.5 * losses["sum"] + 1.5 * losses["class"]).backward()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_moving_average_equals_torchjd_and_resumes():
    torchjd = pytest.importorskip("torchjd.aggregation")
    theirs = torchjd.CRMOGMWeighting(torchjd.PCGradWeighting(), alpha=0.6)
    method, fresh = (methods.CRMOGM(methods.PCGrad(seed=seed), alpha=0.6) for seed in (2, 0))
    jacobians, losses = draws()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for step, (jacobian, values) in enumerate(zip(jacobians, losses, strict=True)):
            _, weights = call(method, jacobian, values)
            torch.testing.assert_close(weights, theirs(jacobian @ jacobian.T))
            if step > 3:
                assert torch.equal(call(fresh, jacobian, values)[1], weights)
            if step == 3:
                fresh.load_state_dict(method.state_dict())
    with pytest.raises(ValueError, match="losses has 2 tasks, earlier calls had 3"):
        call(method, jacobians[0, :2], losses[0, :2])


def test_moving_average_passes_the_end_of_an_epoch_on():
    class Counting(methods.MGDA):
        epochs = 0

        def end_epoch(self):
            self.epochs += 1

    method = methods.CRMOGM(Counting())
    method.end_epoch()
    assert method.method.epochs == 1


def test_moving_average_does_not_remember_what_is_not_finite():
    jacobians, losses = draws()
    method = methods.CRMOGM(nonfinite="propagate")
    call(method, jacobians[0], losses[0])
    before = method.average.clone()
    call(method, jacobians[1] * torch.nan, losses[0])
    assert torch.equal(method.average, before)
    assert not methods.CRMOGM(methods.GradNorm(2)).compares
