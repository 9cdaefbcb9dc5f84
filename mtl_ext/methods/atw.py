"""Adaptive task weighting."""

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.methods.state import keep_finite
from mtl_ext.methods.uw import UW


class ATW(UW):
    """Adaptive task weighting (Chen et al. 2024): uncertainty weights times each loss's long-term rate of change.

    Only a description of the paper is at hand, and no peer has it: uncertainty weighting that also looks at the
    long-term statistics of the losses to even out the speed of training. The formula here is our reading of it: the
    weight is ``v_k / (2 exp(s_k))``, ``v_k = r_k / mean_j r_j``, ``r_k = m_k / L_k(0)``, m the moving average of the
    losses and L(0) the first; so a task whose loss has fallen less than the others' weighs more. The log variances s
    are parameters, trained as in `UW`; v does not enter their gradient, in which it would cancel.

    Args:
        num_tasks: K.
        decay: of the moving average, per step.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        log_variances: [K] float32, start at 0.
    """

    first: Tensor
    average: Tensor

    def __init__(
        self, num_tasks: int, *, decay: float = 0.99, reduction: str = "sum", nonfinite: str = "raise"
    ) -> None:
        super().__init__(num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("decay", decay, 0.0, 1.0)
        self.decay = decay
        self.register_buffer("first", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("average", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted losses for the network, uncertainty weighting for the variances."""
        values = losses.detach()
        new = self.first.isnan().any()
        keep_finite(self.first, torch.where(new, values, self.first))
        keep_finite(self.average, torch.where(new, values, self.decay * self.average + (1 - self.decay) * values))
        rates = torch.where(self.first == 0, 1.0, self.average / self.first)
        relative = torch.where(rates.sum() > 0, rates / rates.mean(), 1.0)
        precisions = torch.exp(-self.log_variances.detach().double()) / 2
        return (relative * precisions) @ losses + super().combined_loss(values)
