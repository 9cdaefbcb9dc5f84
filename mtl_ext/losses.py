"""The losses of one step: where the data flow begins."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Losses = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class TaskLosses:
    """K scalar losses and their names.

    Args:
        losses: tensor [K], sequence of K scalars, or mapping from task name to scalar; not scaled.
        scaler: a GradScaler whose scale the gradients are to have.

    Attributes:
        tensors: K scalars with their graphs.
        keys: their names or indices.
        names: for messages, ``losses['depth']`` or ``losses[2]``.
        values: [K] float64, detached.
        scale: what all gradients are multiplied by, a scalar tensor; None without a scaler.

    Raises:
        ValueError: no loss, a loss that is not a scalar, or one without a graph.
    """

    def __init__(self, losses: Losses, scaler: torch.amp.GradScaler | None = None) -> None:
        if isinstance(losses, Tensor) and losses.dim() != 1:
            raise ValueError(f"losses has shape {list(losses.shape)}, expected [K]: one scalar per task")
        self.keys: list[str | int] = list(losses) if isinstance(losses, Mapping) else list(range(len(losses)))
        self.names = [f"losses[{key!r}]" for key in self.keys]
        self.tensors = list(losses.values()) if isinstance(losses, Mapping) else list(losses)
        if not self.tensors:
            raise ValueError("losses is empty, expected at least one task")
        for name, loss in zip(self.names, self.tensors, strict=True):
            if loss.numel() != 1:
                raise ValueError(
                    f"{name} has shape {list(loss.shape)}, expected a scalar: reduce it, e.g. with .mean()"
                )
            if not loss.requires_grad:
                raise ValueError(f"{name} does not require grad: nothing it was computed from can be trained")
        self.values = loss_values(self.tensors)
        self.scale: Tensor | None = None
        if scaler is not None:
            self.scale = scaler.scale(torch.ones((), device=self.values.device))

    def __len__(self) -> int:
        return len(self.tensors)

    def cotangent(self, k: int) -> Tensor | None:
        """What task k's backward pass starts from; None for 1."""
        loss = self.tensors[k]
        return None if self.scale is None else self.scale.to(loss.dtype).reshape(loss.shape)

    def unscaled(self, gram: Tensor) -> Tensor:
        """The Gram matrix [K, K] of the gradients as they are without the scaler."""
        return gram if self.scale is None else gram / self.scale.double().square()


def loss_values(losses: Losses) -> Tensor:
    """The K losses as they are, detached, [K] float64."""
    tensors = losses.values() if isinstance(losses, Mapping) else losses
    return torch.stack([loss.detach().reshape(()).double() for loss in tensors])
