"""Dynamic weight average."""

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import RunningMean, keep_finite


class DWA(LossMethod):
    """Dynamic weight average (Liu et al. 2019): tasks whose loss falls more slowly weigh more.

    ``w = K softmax(r / T)``, ``r_k = L_k(t-1) / L_k(t-2)``, L(t) the mean losses of epoch t (the paper's Eq. 7). Call
    ``end_epoch()`` after each; the weights are 1 in the first two. With a window of n steps instead, L(t-1) is the mean
    of the last n losses, this step's included, and L(t-2) that of the n before; the weights are 1 in the first 2 n - 1
    steps.

    Peers differ: nash-mtl has a window of 25 whose history starts with ones, and takes the mean.

    Args:
        num_tasks: K.
        temperature: T; the larger, the more equal the weights.
        window: steps per mean; 0 for epochs.
        reduction: ``"sum"``, weights that sum to K, as in the paper; or ``"mean"``: to 1, as nash-mtl has it.
        nonfinite: see `Method`.
    """

    averages: Tensor
    recent: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        temperature: float = 2.0,
        window: int = 0,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("temperature", temperature, 0.0, open_low=True)
        check_range("window", window, 0)
        self.temperature = temperature
        self.window = window
        self.epoch = RunningMean(num_tasks)
        self.register_buffer("averages", torch.full((2, num_tasks), torch.nan, dtype=torch.float64))
        self.register_buffer("recent", torch.full((2 * window, num_tasks), torch.nan, dtype=torch.float64))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        rates = self.rates(losses.detach())
        weights = len(losses) * (rates / self.temperature).softmax(0)
        return torch.where(rates.isfinite().all(), weights, 1.0) @ losses

    def rates(self, losses: Tensor) -> Tensor:
        """Takes a step's losses [K] float64, detached; gives r [K], with NaN while the weights are 1."""
        self.epoch.add(losses)
        if self.window:
            finite = losses.isfinite().all()
            shifted = torch.cat([self.recent[1:], losses[None]])
            self.recent.copy_(torch.where(finite, shifted, self.recent))
            keep_finite(self.averages, self.recent.reshape(2, self.window, -1).mean(1))
        older, newer = self.averages
        return torch.where(older == 0, 1.0, newer / older).clamp(max=torch.finfo(torch.float64).max)

    def end_epoch(self) -> None:
        """Takes the epoch's mean losses; without a step since the last call, nothing happens."""
        mean = self.epoch.take()
        if not self.window:
            known = torch.stack([self.averages[1], mean])
            self.averages.copy_(torch.where(mean.isfinite().all(), known, self.averages))
