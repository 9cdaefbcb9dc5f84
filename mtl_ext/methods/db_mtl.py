"""DB-MTL: losses balanced by their logarithm, gradients by their norm."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_num_tasks, check_range
from mtl_ext.methods.grad_method import GradMethod
from mtl_ext.methods.gradient_state import GradientState, combined_states


class DBMTL(GradMethod):
    """Dual-balancing (Lin et al. 2023, Algorithm 1): averages of the log-losses' gradients, all scaled to one norm.

    With h_k the gradient of ``log(L_k + 1e-8)``, in step t = 1, 2, ...: ``B_k <- h_k + beta / t^sigma (B_k - h_k)``,
    and the combined gradient is ``sum_k (max_j ||B_j|| / ||B_k||) B_k``. B starts at 0, so that the first step is
    ``1 - beta`` of its length (as in LibMTL). A task with ``B_k = 0`` is left out. The losses must be above -1e-8. The
    state takes as much memory as the K gradients; at feature level it belongs to the places in the batch, see
    `GradientState`. The returned weights are ``1 / (L_k + 1e-8)``, which by default multiply the heads' gradients:
    heads are trained on log-losses too.

    Args:
        num_tasks: K.
        beta: how much of the averages is kept, in [0, 1).
        sigma: by which power of t that share falls, at least 0.
        reduction: ``"sum"`` as in the paper and LibMTL, or ``"mean"``: combination and returned weights divided by K,
            as for the mean of the log-losses.
        weight_heads: train the heads on the logarithms of their losses, as in the paper.
        nonfinite: see `Method`.

    Attributes:
        steps: float64, steps done.
    """

    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: float = 0.9,
        sigma: float = 0.0,
        reduction: str = "sum",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        check_range("sigma", sigma, 0.0)
        self.num_tasks = num_tasks
        self.beta, self.sigma = beta, sigma
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.averages = GradientState("DBMTL")

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        check_num_tasks(len(losses), self.num_tasks)
        step = self.steps + 1
        scale = 1.0 if gradients.losses.scale is None else gradients.losses.scale.double()
        keep = self.beta * step**-self.sigma
        slopes = 1 / (losses + 1e-8)
        averages = self.averages.average_in(gradients, keep, (1 - keep) * slopes / scale, usable)
        self.steps.copy_(torch.where(usable == 1, step, self.steps))
        norms = ops.gram(averages, len(losses)).diagonal().sqrt()
        reduction = self.reduction_factor(len(losses))
        factors = torch.where(norms > 0, reduction * norms.max() / norms, 0.0)
        gradients.write(combined_states(averages, gradients, factors * scale), usable.reshape(1))
        return torch.where(usable == 1, reduction * slopes, usable)
