"""CosReg: its derivative, and what it refuses."""

import pytest
import torch
from nets import TwoHeads

from mtl_ext.methods import CosReg, NonFiniteError


def regulariser(losses, targets):
    """Ten times the squared cosine of two tasks' gradients by its definition, differentiable."""
    rows = []
    for loss in losses.values():
        grads = torch.autograd.grad(loss, targets, create_graph=True, allow_unused=True)
        flat = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, targets, strict=True)]
        rows.append(torch.cat([g.flatten() for g in flat]))
    first, second = rows
    return 10 * (first @ second) ** 2 / ((first @ first) * (second @ second))


def gradients(outputs, params, cotangents=None):
    """By autograd.grad, zeros where nothing is reached."""
    options = {"retain_graph": True, "allow_unused": True}
    grads = torch.autograd.grad(outputs, params, cotangents, **options)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, params, strict=True)]


@pytest.mark.parametrize("level", ["shared", "features", "both"])
@pytest.mark.parametrize("detach_heads", [False, True])
@pytest.mark.parametrize("scale", [None, 64.0])
def test_the_gradient_is_that_of_the_formula(level, detach_heads, scale):
    net, plain = TwoHeads(dtype=torch.float64), TwoHeads(dtype=torch.float64)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    z, losses = net()
    where = {
        **({} if level == "features" else {"shared": net.shared()}),
        **({} if level == "shared" else {"features": z}),
    }
    assert CosReg(detach_heads=detach_heads).backward(losses, **where, scaler=scaler).tolist() == [1.0, 1.0]

    z, losses = plain()
    names, params = zip(*plain.named_parameters(), strict=True)
    targets = [z] if level == "features" else plain.shared()
    term = regulariser(losses, targets)
    if not detach_heads:
        extra = gradients(term, params)
    elif level == "features":
        extra = gradients(z, params, gradients(term, [z])[0])
    else:
        extra = [
            g * any(p is target for target in targets) for p, g in zip(params, gradients(term, params), strict=True)
        ]
    for name, p, own, more in zip(names, net.parameters(), gradients(sum(losses.values()), params), extra, strict=True):
        torch.testing.assert_close(p.grad / (scale or 1), own + more, msg=lambda text, name=name: f"{name}: {text}")


def test_one_task_and_zero_gradients_give_the_sum():
    net, plain = TwoHeads(), TwoHeads()
    CosReg().backward([net()[1]["class"]], shared=net.shared())
    plain()[1]["class"].backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.shared(), plain.shared(), strict=True))
    x = torch.full((3,), 2.0, requires_grad=True)
    CosReg().backward([(x**2).sum(), (0 * x**3).sum()], shared=[x])
    torch.testing.assert_close(x.grad, torch.full((3,), 4.0))


def test_the_strength_is_a_factor():
    grads = []
    for c in (0.0, 1.0, 3.0):
        net = TwoHeads(dtype=torch.float64)
        CosReg(c=c).backward(net()[1], shared=net.shared())
        grads.append(net.trunk[0].weight.grad)
    torch.testing.assert_close(grads[2] - grads[0], 3 * (grads[1] - grads[0]))


def test_what_it_cannot_do_is_named():
    net = TwoHeads()
    z, losses = net()
    with pytest.raises(ValueError, match="CosReg differentiates each batch's cosines, combine=False would collect"):
        CosReg().backward(losses, features=z, combine=False)
    with pytest.raises(ValueError, match=r"CosReg.backward needs shared=.* or features="):
        CosReg().backward(losses)
    features, losses = net.own_inputs()
    with pytest.raises(ValueError, match=r"losses\['class'\] reads features of its own input.*shared="):
        CosReg().backward(losses, features=features)


def test_bad_gradients_are_named_or_skipped():
    x = torch.ones(3, requires_grad=True)

    def losses():
        return {"fine": x.sum(), "depth": (x - 1).abs().sqrt().sum()}  # infinite slope at 1

    with pytest.raises(NonFiniteError, match=r"the gradient of losses\['depth'\] has squared norm"):
        CosReg().backward(losses(), shared=[x])
    assert CosReg(nonfinite="skip").backward(losses(), shared=[x]).tolist() == [0.0, 0.0]
    assert x.grad is None
    CosReg(nonfinite="propagate").backward(losses(), shared=[x])
    assert not x.grad.isfinite().all()
