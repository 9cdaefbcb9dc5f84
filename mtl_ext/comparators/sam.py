"""SAM: steps along the gradients at the worst parameters nearby."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from mtl_ext.losses import Losses
from mtl_ext.methods.base import check_range

T = TypeVar("T")


class SAM:
    """Sharpness-aware minimisation (Foret et al. 2021) around an optimizer's step; composes with every method.

    Moves all parameters of the optimizer by ``rho g / |g|``, g the gradient of the sum of the losses, takes the
    method's gradients there, and steps with them from where the parameters were. In one's own loop::

        sam = SAM(optimizer, model, rho=0.05)
        for x, y in loader:
            weights = sam.step(lambda: losses(x, y), lambda: method.backward(losses(x, y), shared=shared))

    Args:
        optimizer: whose parameters move and are stepped.
        model: whose running statistics (BatchNorm) and other buffers the first of the two passes updates, and it alone.
        rho: length of the ascent, above 0.
        scaler: the GradScaler of mixed precision, which then steps; pass it to ``method.backward`` as well. Where g is
            not finite there is no ascent: the scaler skips the step.

    Raises:
        ValueError: ``rho`` is not above 0.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        *,
        rho: float = 0.05,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        check_range("rho", rho, 0.0, open_low=True)
        self.optimizer = optimizer
        self.model = model
        self.rho = rho
        self.scaler = scaler

    def step(self, losses: Callable[[], Losses], backward: Callable[[], T]) -> T:
        """One step of the optimizer.

        Args:
            losses: () -> the tasks' losses, from a forward pass.
            backward: () -> anything; another forward pass of the batch, whose gradients a method puts into ``.grad``.
                Gradients from before the call are dropped.

        Returns:
            What ``backward`` gives. Where one of the two raises, parameters and buffers are as they were.
        """
        with self.ascended(losses):
            self.optimizer.zero_grad()
            result = backward()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return result

    @contextmanager
    def ascended(self, losses: Callable[[], Losses]) -> Iterator[None]:
        """Inside the block the parameters are the worst nearby; gradients taken there stay in ``.grad``.

        For loops that step by themselves. Afterwards the parameters are as they were, and the buffers as the forward
        pass of ``losses`` left them.

        Args:
            losses: see `step`.
        """
        params = [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]
        buffers = list(self.model.buffers())
        start = [buffer.clone() for buffer in buffers]
        try:
            moves = self._ascent(losses(), params)
            start = [buffer.clone() for buffer in buffers]  # after the first pass
            origin = [param.detach().clone() for param in params]
            try:
                with torch.no_grad():
                    torch._foreach_add_(params, moves)
                yield
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(params, origin)
        finally:
            for buffer, value in zip(buffers, start, strict=True):
                buffer.copy_(value)

    def _ascent(self, losses: Losses, params: list[Tensor]) -> list[Tensor]:
        """``rho g / |g|`` for each parameter; 0 where the gradient is 0 or not finite."""
        tensors = list(losses.values()) if isinstance(losses, Mapping) else list(losses)
        total = torch.stack([loss.reshape(()) for loss in tensors]).sum()
        total = total if self.scaler is None else self.scaler.scale(total)
        grads = torch.autograd.grad(total, params, allow_unused=True, materialize_grads=True)
        norm = torch.nn.utils.get_total_norm(grads)
        length = torch.where(norm.isfinite() & (norm > 0), self.rho / norm, 0.0)
        return [torch.where(length > 0, length.to(grad.dtype) * grad, 0.0) for grad in grads]
