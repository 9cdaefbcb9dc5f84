"""The loss-balancing half of impartial multi-task learning."""

import torch
from torch import Tensor, nn

from mtl_ext.methods.loss_method import LossMethod


class IMTLL(LossMethod):
    """Impartial multi-task learning, its loss balance (Liu et al. 2021, IMTL-L): ``sum_k exp(s_k) L_k - s_k``.

    At the optimum of s every scaled loss is 1. The scales are parameters: give ``method.parameters()`` to the
    optimizer, in a group without weight decay. Twice `UW` with the sign of its parameter changed. TorchJD does the
    same.

    Args:
        num_tasks: K.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        log_scales: [K] float32, start at 0.
    """

    def __init__(self, num_tasks: int, *, reduction: str = "sum", nonfinite: str = "raise") -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        self.log_scales = nn.Parameter(torch.zeros(num_tasks))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The scaled losses less the logarithms of their scales."""
        log_scales = self.log_scales.double()
        return log_scales.exp() @ losses - log_scales.sum()
