"""Fast adaptive multi-task optimisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.losses import Losses, loss_values
from mtl_ext.methods.base import check_num_tasks, check_range, task_values
from mtl_ext.methods.loss_method import LossMethod, log_of
from mtl_ext.methods.state import Adam

FLOOR = 1e-8


class FAMO(LossMethod):
    """Fast adaptive multi-task optimisation (Liu et al. 2023): all losses fall at the same relative rate.

    The step is on ``sum_k z_k log D_k / sum_k (z_k / D_k)``, the denominator held constant, with ``z = softmax(v)`` and
    ``D = L - b + 1e-8``; so the weights ``z_k / D_k`` sum to 1. No gradient goes through z here. After the optimizer's
    step, `look_again` takes the losses of the same batch: ``delta = log D_before - log D_after``, and Adam moves the
    logits v along ``(d softmax / dv)^T delta``, away from tasks whose loss fell faster. Without `look_again` the logits
    stay equal. A loss below its bound b is an error on the CPU.

    Not scale-free in the losses, by its 1e-8. Peers differ: the authors' code has weight decay 1e-5, the paper's
    Algorithm 2, TorchJD and LibMTL 1e-3.

    Args:
        num_tasks: K.
        lower_bounds: b, K numbers below which the losses cannot fall; 0 by default.
        lr: Adam's learning rate for the logits.
        weight_decay: of the logits.
        reduction: ``"mean"``, weights that sum to 1, as in the authors' code and the peers; or ``"sum"``: times K.
        nonfinite: see `Method`.

    Attributes:
        logits: v, [K] float64, start at 0. Not parameters: the method moves them itself.
    """

    formula_gives = "mean"
    second_look = True
    logits: Tensor
    lower_bounds: Tensor
    before: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        lower_bounds: Sequence[float] | Tensor | None = None,
        lr: float = 0.025,
        weight_decay: float = 1e-3,
        reduction: str = "mean",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("lr", lr, 0.0)
        check_range("weight_decay", weight_decay, 0.0)
        bounds = [0.0] * num_tasks if lower_bounds is None else lower_bounds
        self.register_buffer("lower_bounds", task_values("lower_bounds", bounds, num_tasks))
        self.register_buffer("logits", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("before", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.adam = Adam(num_tasks, lr=lr, weight_decay=weight_decay)

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The normalised weighted logarithms."""
        gaps = losses - self.lower_bounds + FLOOR
        logs = log_of(gaps)
        self.before.copy_(logs.detach())
        weights = self.logits.softmax(0)
        return weights @ logs / (weights / gaps.detach()).sum()

    @torch.no_grad()
    def look_again(self, losses: Losses) -> None:
        """Moves the logits by what the step has changed; once per step, and not after one that was left out."""
        values = loss_values(losses)
        check_num_tasks(len(values), len(self.logits))
        change = self.before - log_of(values - self.lower_bounds + FLOOR)
        self.before.fill_(torch.nan)
        weights = self.logits.softmax(0)
        self.adam.step(self.logits, weights * (change - weights @ change))
