"""How fast every task's loss changes along one direction: K numbers without K gradients."""

import functools
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtl_ext import ops
from mtl_ext.bilevel.stateless import LossFn, losses_at
from mtl_ext.losses import Losses, loss_values


def task_products(
    loss_fn: LossFn,
    model: nn.Module,
    direction: Mapping[str, Tensor],
    *,
    mode: str = "jvp",
    radius: float = 0.01,
    eps: float | None = None,
) -> Tensor:
    """The inner products ``<d L_k / d params, direction>`` of all K tasks, at the model's own parameters.

    ``mode="jvp"``: exact, by one forward-mode pass, at the cost of about two forward passes (attention runs in torch's
    plain form, which alone has forward-mode formulas). ``mode="fd"``: the central difference
    ``(L(params + eps direction) - L(params - eps direction)) / (2 eps)`` with ``eps = radius / |direction|``, by two
    forward passes without autograd; for operators without such formulas. It is exact for quadratic losses, and with
    ReLU off by a percent or so: activations change sign on the way.

    The model is left as it is, see `losses_at`; every pass has the same random numbers.

    Args:
        loss_fn: ``() -> K losses``, which calls this very model.
        model: the module whose parameters are moved.
        direction: parameter's name -> tensor of its shape and dtype. Parameters left out do not move.
        mode: ``"jvp"`` or ``"fd"``.
        radius: length of the step of ``"fd"``; Auto-lambda's 0.01.
        eps: that of ``"fd"`` itself, in place of the one that the radius gives.

    Returns:
        [K] float64, detached.

    Raises:
        ValueError: another mode.
        RuntimeError: an operator of the model has no forward-mode formula; the message says what to do.
    """
    if mode not in ("jvp", "fd"):
        raise ValueError(f"mode is {mode!r}, expected 'jvp' or 'fd'")
    own = dict(model.named_parameters())
    params = {name: own[name].detach() for name in direction}
    if mode == "jvp":
        return _forward_mode(loss_fn, model, params, {name: tensor.detach() for name, tensor in direction.items()})
    along = [tensor.detach() for tensor in direction.values()]
    radius = radius if eps is None else eps * float(torch.nn.utils.get_total_norm(along))
    plus, minus, step = ops.perturb(list(params.values()), along, radius)
    with torch.no_grad():
        up, down = (
            loss_values(losses_at(loss_fn, model, dict(zip(params, moved, strict=True)))) for moved in (plus, minus)
        )
    step = step.to(up.device)
    return torch.where(step == 0, 0.0, (up - down) / (2 * step))


def _forward_mode(loss_fn: LossFn, model: nn.Module, params: dict[str, Tensor], direction: dict[str, Tensor]) -> Tensor:
    _load_forward_mode()

    def losses(params: dict[str, Tensor]) -> Tensor:
        return _stacked(losses_at(loss_fn, model, params))

    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            tangents: Tensor = torch.func.jvp(losses, (params,), (direction,))[1]
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RuntimeError(
            f"the forward-mode pass failed: {reason} Where an operator or an autograd.Function of the model has no "
            "forward-mode formula, set mode='fd': two forward passes and a finite difference."
        ) from error
    return tangents.detach()


def _stacked(losses: Losses) -> Tensor:
    """The K losses, [K] float64, with what they depend on."""
    tensors = losses.values() if isinstance(losses, Mapping) else losses
    return torch.stack([loss.reshape(()).double() for loss in tensors])


@functools.cache
def _load_forward_mode() -> None:
    """Lets torch script its forward-mode formulas, which it does at their first use, warning of its own doing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        one = torch.ones(())
        torch.func.jvp(torch.neg, (one,), (one,))
