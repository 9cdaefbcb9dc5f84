"""`accelerate()` and `restore()`: LibMTL's names on this package's methods, its gradients collected on their device."""

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mtl_ext.adapters.libmtl.weightings import WEIGHTINGS
from mtl_ext.adapters.patching import Patch, Replacement, Report

# What AbsWeighting of LibMTL's git main has, as far as it is replaced or relied on.
INTERFACE = {
    "init_param": ["self"],
    "_compute_grad": ["self", "losses", "mode", "rep_grad"],
    "_compute_grad_dim": ["self"],
    "_reset_grad": ["self", "new_grads"],
}
THREE_BATCHES = {"MoDo", "SDMGrad"}

_patch = Patch()


def accelerate(*, skip: Iterable[str] = ()) -> Report:
    """Puts this package's classes under LibMTL's names, until `restore`. A second call changes nothing.

    Models that exist already keep their weighting; make the Trainer afterwards.

    Args:
        skip: names that stay LibMTL's, for example ``["GradNorm"]``; ``"AbsWeighting"`` for the gradient collection
            that weightings of one's own inherit.

    Returns:
        The report, which goes on counting.

    Raises:
        ImportError: LibMTL is missing or of another version.
        ValueError: ``skip`` names what is not replaced.
    """
    if _patch.report is not None:
        return _patch.report
    peer = libmtl_weighting()
    present = {name: cls for name, cls in WEIGHTINGS.items() if name in vars(peer)}
    found = [Replacement(name, peer, name, cls) for name, cls in present.items()]
    found.append(Replacement("AbsWeighting", peer.AbsWeighting, "_compute_grad", compute_grad))
    found.append(Replacement("AbsWeighting", peer.AbsWeighting, "_reset_grad", reset_grad))
    others = set(getattr(peer, "__all__", ())) - set(present) - {"AbsWeighting"}
    left = dict.fromkeys(sorted(others), "no method here; it inherits the gradient collection")
    left |= dict.fromkeys(sorted(set(WEIGHTINGS) - set(present)), "this LibMTL has no weighting of the name")
    return _patch.apply(found, skip, left)


def restore() -> None:
    """Gives LibMTL everything back; models made meanwhile keep what they have."""
    _patch.undo()


def libmtl_weighting() -> Any:
    """The module ``LibMTL.weighting``.

    Raises:
        ImportError: it cannot be imported, or is not that of LibMTL's git main.
    """
    wanted = "mtl_ext.adapters.libmtl works with LibMTL's git main (https://github.com/median-research-group/LibMTL)"
    try:
        peer = importlib.import_module("LibMTL.weighting")
    except ImportError as error:
        raise ImportError(f"{wanted}, which cannot be imported: {error}") from error
    owner = getattr(peer, "AbsWeighting", None)
    for name, expected in INTERFACE.items():
        function = getattr(owner, name, None)
        found = None if function is None else list(inspect.signature(function).parameters)
        if found != expected:
            raise ImportError(
                f"{wanted}; the installed one has AbsWeighting.{name} with parameters {found}, expected {expected}"
            )
    return peer


def compute_grad(self: Any, losses: Tensor, mode: str, rep_grad: bool = False) -> Tensor | list[Tensor]:
    """``AbsWeighting._compute_grad`` without the way through the CPU.

    Also with ``mode="autograd"`` and ``rep_grad=True``, where LibMTL returns zeros, and with parameters that a task
    does not reach.

    Args:
        self: LibMTL's model.
        losses: [T].
        mode: ``"backward"``, which also trains the heads, or ``"autograd"``.
        rep_grad: with respect to the representation.

    Returns:
        [T, grad_dim], or [T, *representation], or one for each task's own representation. Of the shared parameters that
        a task reaches, ``.grad`` exists and is 0, to be overwritten by ``_reset_grad``.
    """
    if mode not in ("backward", "autograd"):
        raise ValueError(f"mode is {mode!r}, expected 'backward' or 'autograd'")
    three_batches = any(cls.__name__ in THREE_BATCHES for cls in type(self).__mro__)
    params = [] if rep_grad else list(self.get_share_params())
    rows: list[Tensor] = []
    for k, task in enumerate(self.task_name):
        targets = [self.rep_tasks[task]] if rep_grad else params
        keep = mode == "autograd" or three_batches or k + 1 < self.task_num
        if mode == "backward":
            losses[k].backward(retain_graph=keep)  # type: ignore[no-untyped-call]
            grads = [target.grad for target in targets]
        else:
            grads = list(torch.autograd.grad(losses[k], targets, retain_graph=keep, allow_unused=True))
        found = [torch.zeros_like(t) if g is None else g for t, g in zip(targets, grads, strict=True)]
        rows.append(found[0].clone() if rep_grad else torch.cat([grad.reshape(-1) for grad in found]))
        for param, grad in zip(params, grads, strict=False):
            if grad is not None:
                param.grad = torch.zeros_like(param) if param.grad is None else param.grad.zero_()
    return rows if rep_grad and isinstance(self.rep, dict) else torch.stack(rows)


@torch.no_grad()
def reset_grad(self: Any, new_grads: Tensor) -> None:
    """``AbsWeighting._reset_grad``: the gradient [grad_dim] over the shared parameters' ``.grad``, where it exists."""
    params = list(self.get_share_params())
    parts = torch.split(new_grads, [param.numel() for param in params])
    for param, grad in zip(params, parts, strict=True):
        if param.grad is not None:
            param.grad.copy_(grad.view_as(param))
