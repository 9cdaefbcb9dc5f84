"""The derivative of dummy heads' gradient norms with respect to what the heads read."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mtl_ext.penalties.dummy_heads import DummyHeads, Params, like, tensors_of

LOW_PRECISION = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Evaluation:
    """One batch of one task.

    Attributes:
        inputs: what the head reads, a tensor or several, [B, ...].
        targets: of the task.
        autocast: device type and dtype of the heads' forward passes; None: as they are.
        scale: what gradients are to be multiplied by, None for 1.
    """

    inputs: Any
    targets: Any
    autocast: tuple[str, torch.dtype | None]
    scale: Tensor | None

    def computed(self, forward: Callable[[], Tensor]) -> Tensor:
        """Outputs in the configured precision, given in at least float32."""
        kind, dtype = self.autocast
        with torch.autocast(kind, dtype, enabled=dtype is not None):
            out = forward()
        return out.float() if out.dtype in LOW_PRECISION else out

    def scaled(self, losses: Tensor) -> Tensor:
        """Losses times the scale: all that follows is homogeneous in them."""
        return losses if self.scale is None else losses * self.scale.to(losses.dtype)

    def unscaled(self, norms: Tensor) -> Tensor:
        """Norms without the scale."""
        return norms if self.scale is None else norms / self.scale.to(norms.dtype)


def norm_gradient(
    dummies: DummyHeads, evaluation: Evaluation, norms_of: Callable[[Params, Any], Tensor]
) -> tuple[Tensor, list[Tensor | None]]:
    """The norms [D], detached and without scale, and the gradients of their sum with respect to the inputs.

    Args:
        dummies: D heads.
        evaluation: the batch.
        norms_of: (parameters, inputs) -> differentiable norms [D], scaled.

    Raises:
        RuntimeError: a layer or loss has no second derivative.
    """
    with torch.enable_grad(), _explained():
        leaves = [tensor.detach().requires_grad_() for tensor in tensors_of(evaluation.inputs)]
        norms = norms_of(dummies.params(), like(evaluation.inputs, leaves))
        grads: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if norms.requires_grad:  # else the gradients do not depend on the inputs
            grads = torch.autograd.grad(norms.sum(), leaves, allow_unused=True)
    return evaluation.unscaled(norms.detach()), list(grads)


@contextmanager
def _explained() -> Iterator[None]:
    """Says what to do where torch has no second derivative."""
    try:
        yield
    except RuntimeError as error:
        if "derivative for" not in str(error) or "not implemented" not in str(error):
            raise
        raise RuntimeError(
            f"a layer of a head, or its loss, has no second derivative: take mode='finite_difference' ({error})"
        ) from error


class BatchNorms:
    """The norms of the batch's gradients, and their derivative, by double backward through the dummies.

    Args:
        dummies: D heads of one task.
        loss: (output, target) -> scalar.
    """

    def __init__(self, dummies: DummyHeads, loss: Callable[[Any, Any], Tensor]) -> None:
        self.dummies = dummies
        self.loss = loss

    def __call__(self, evaluation: Evaluation) -> tuple[Tensor, list[Tensor | None]]:
        """The norms [D], and the gradients of their sum with respect to the inputs; 0 where a norm is 0."""

        def norms(params: Params, inputs: Any) -> Tensor:
            outputs = evaluation.computed(lambda: self.dummies.outputs(params, inputs))
            total = evaluation.scaled(torch.stack([self.loss(out, evaluation.targets) for out in outputs])).sum()
            grads = torch.autograd.grad(total, list(params.values()), create_graph=True, allow_unused=True)
            return row_norms({name: grad for name, grad in zip(params, grads, strict=True) if grad is not None})

        return norm_gradient(self.dummies, evaluation, norms)


def row_norms(grads: Mapping[str, Tensor]) -> Tensor:
    """Norms [D] of lists of tensors [D, ...], all tensors together, in at least float32."""
    rows = [grad.float() if grad.dtype in LOW_PRECISION else grad for grad in grads.values()]
    parts = [torch.linalg.vector_norm(row.flatten(1), dim=1) for row in rows]
    norms: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    return norms
