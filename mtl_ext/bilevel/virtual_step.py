"""Where an optimizer's next step would lead, as a function of the gradient."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

FORMS = ("own", "sgd")


class VirtualStep:
    """The parameters after an optimizer's next step, which is not taken: nothing of model or optimizer is written to.

    It takes the memory of the parameters, and for the time of the step that of the optimizer's state, once more.

    ``form="own"``: the optimizer's own step, by its own code, state and learning rates, on copies: the same bits.
    ``form="sgd"``: ``p - lr (m b + g + d p)`` with the group's learning rate and weight decay d and, if there is one,
    the momentum m and its buffer b. That is what the published code of Auto-lambda does whatever the optimizer. The two
    are the same for SGD without dampening and without Nesterov's momentum, and differ for Adam.

    Args:
        optimizer: the optimizer that trains the parameters.
        params: P parameters. Those that the optimizer does not have stay where they are.
        grads: P gradients g, None for a parameter that gets none: the optimizer leaves that one out.
        form: ``"own"`` or ``"sgd"``.

    Attributes:
        params: P tensors, the moved parameters, without a graph.

    Raises:
        ValueError: another form.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        params: Sequence[Tensor],
        grads: Sequence[Tensor | None],
        *,
        form: str = "own",
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"form is {form!r}, expected one of {', '.join(map(repr, FORMS))}")
        self.form = form
        self._optimizer = optimizer
        self._before = list(params)
        self._grads = [None if grad is None else grad.detach() for grad in grads]
        ids = {id(param) for param, grad in zip(params, grads, strict=True) if grad is not None}
        self._groups = {id(p): group for group in optimizer.param_groups for p in group["params"] if id(p) in ids}
        if form == "own":
            # Copies, because foreach forms write to the gradients.
            self.params = self._own_step([None if grad is None else grad.clone() for grad in self._grads])
        else:
            self.params = [self._sgd_step(*pair) for pair in zip(self._before, self._grads, strict=True)]

    def pull_back(self, cotangents: Sequence[Tensor | None]) -> list[Tensor]:
        """``(d moved / d g)^T v``, before the optimizer's state changes: ``-lr v`` for gradient descent.

        With it, ``d F(moved) / d w_k = <g_k, pull_back(d F / d moved)>`` where ``g = sum_k w_k g_k``.

        Args:
            cotangents: v, P tensors of the parameters' shapes; None counts as zero.

        Returns:
            P tensors; zeros where the parameter does not move with its gradient. An entry whose gradient is exactly 0
            and whose step has no derivative there (Adam's square root before anything has entered it) counts as 0.

        Raises:
            ValueError: the optimizer cannot be differentiated in its own form. Those of torch.optim with an argument
                ``differentiable`` can (SGD, the Adams, RMSprop, ...).
        """
        vectors = [torch.zeros_like(p) if v is None else v for p, v in zip(self.params, cotangents, strict=True)]
        if self.form == "sgd":
            return [-self._rate(param) * vector for param, vector in zip(self._before, vectors, strict=True)]
        if "differentiable" not in self._optimizer.defaults:
            raise ValueError(
                f"optimizer is {type(self._optimizer).__name__}, which cannot be differentiated: take one of "
                "torch.optim with an argument 'differentiable', such as SGD or Adam, or the published form, 'sgd'"
            )
        pairs = zip(self._grads, cotangents, strict=True)
        inputs = [None if grad is None or v is None else grad.clone().requires_grad_() for grad, v in pairs]
        after = self._own_step(inputs, differentiable=True)
        pulled = [torch.zeros_like(vector) for vector in vectors]
        for i, (grad, moved, vector) in enumerate(zip(inputs, after, vectors, strict=True)):
            if grad is not None and moved.requires_grad:
                (slope,) = torch.autograd.grad(moved, grad, vector)
                pulled[i] = torch.where((grad == 0) & slope.isnan(), 0.0, slope).detach()
        return pulled

    def _own_step(self, grads: Sequence[Tensor | None], *, differentiable: bool = False) -> list[Tensor]:
        """Steps a copy of the optimizer that holds copies of its state and of the parameters."""
        moved = [param.detach().clone() for param in self._before]
        copies = {id(param): new for param, new in zip(self._before, moved, strict=True) if id(param) in self._groups}
        states: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for param, new, grad in zip(self._before, moved, grads, strict=True):
            if id(param) in copies:
                new.grad = grad
                state = self._optimizer.state.get(param, {})
                states[new] = {
                    key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()
                }
        groups: list[dict[str, Any]] = []
        for group in self._optimizer.param_groups:
            members = [copies[id(param)] for param in group["params"] if id(param) in copies]
            if differentiable:
                groups += [self._differentiable(group, member, states[member]) for member in members]
            else:
                groups.append({**group, "params": members})
        defaults = {**self._optimizer.defaults, "differentiable": differentiable}
        # As unpickling makes one: without hooks, and without what a schedule has wrapped around the step.
        double = object.__new__(type(self._optimizer))
        double.__setstate__({"defaults": defaults, "state": states, "param_groups": groups})
        double.step()
        return moved

    def _differentiable(self, group: dict[str, Any], param: Tensor, state: dict[str, Any]) -> dict[str, Any]:
        """The group of a single parameter whose step can be differentiated by the gradient."""
        group = {**group, "params": [param], "differentiable": True, "foreach": False, "fused": False}
        for key, value in state.items():
            if isinstance(value, Tensor) and value.dim() == 0 and value.dtype == torch.float32:
                state[key] = value.double()  # the count of steps: differentiable forms compute with it as it is
        if isinstance(self._optimizer, torch.optim.SGD) and state.get("momentum_buffer") is None:
            # SGD cuts its first gradient off from the graph. By way of an empty buffer the step is the same.
            state["momentum_buffer"] = torch.zeros_like(param)
            group["dampening"] = 0.0
        return group

    @torch.no_grad()
    def _sgd_step(self, param: Tensor, grad: Tensor | None) -> Tensor:
        group = self._groups.get(id(param))
        if group is None or grad is None:
            return param.detach().clone()
        step = grad + group.get("weight_decay", 0.0) * param
        buffer = self._optimizer.state.get(param, {}).get("momentum_buffer")
        if buffer is not None:
            step += group["momentum"] * buffer
        moved: Tensor = param - group["lr"] * step
        return moved

    def _rate(self, param: Tensor) -> Any:
        """The learning rate of a parameter that moves; else 0."""
        group = self._groups.get(id(param))
        return 0.0 if group is None else group["lr"]
