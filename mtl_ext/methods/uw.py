"""Uncertainty weighting."""

import torch
from torch import Tensor, nn

from mtl_ext.methods.base import check_choice
from mtl_ext.methods.loss_method import LossMethod


class UW(LossMethod):
    """Uncertainty weighting (Kendall et al. 2018): ``sum_k L_k / (2 exp(s_k)) + s_k / 2`` with ``s_k = log sigma_k^2``.

    The log variances are parameters: give ``method.parameters()`` to the optimizer, in a group without weight decay.
    Form 1 is the paper's Eq. 7. Peers differ: TorchJD and LibMTL have form 1, and LibMTL starts at -0.5.

    Args:
        num_tasks: K.
        form: 1 as above; 2 for ``sum_k exp(-s_k) L_k + s_k / 2``.
        reduction: ``"sum"`` as above and in the peers, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        log_variances: [K] float32, start at 0.
    """

    def __init__(self, num_tasks: int, *, form: int = 1, reduction: str = "sum", nonfinite: str = "raise") -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_choice("form", form, (1, 2))
        self.form = form
        self.log_variances = nn.Parameter(torch.zeros(num_tasks))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted losses and the price of each variance."""
        precisions = torch.exp(-self.log_variances.double()) / (2 if self.form == 1 else 1)
        return precisions @ losses + self.log_variances.double().sum() / 2
