"""MoCo: gradients tracked by a moving average, weights by gradient descent on the simplex."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_num_tasks, check_range
from mtl_ext.methods.grad_method import GradMethod
from mtl_ext.methods.gradient_state import GradientState, combined_states


class MoCo(GradMethod):
    """Multi-objective gradient correction (Fernando et al. 2023, Algorithm 1): combines moving averages of gradients.

    With the gradients normalised to ``h_k = L_k g_k / ||g_k||`` (0 where ``g_k = 0``), in step t = 1, 2, ...:

    ``Y_k <- Y_k - beta / t^sigma (Y_k - h_k)``,
    ``w <- softmax(w - gamma / t^sigma_gamma (Y Y^T + rho I) w)``, and the combined gradient is ``sum_k w_k Y_k``.

    Y starts at 0, w at 1/K. As in LibMTL: the paper projects w onto the simplex instead of taking a softmax, and does
    not normalise. The scale of the gradients does not matter at all; that of the losses does. The state takes as much
    memory as the K gradients; at feature level it belongs to the places in the batch, see `GradientState`. The returned
    weights are those of Y, not of this step's gradients.

    Args:
        num_tasks: K.
        beta: step of the averages, in (0, 1].
        sigma: by which power of t that step falls, at least 0.
        gamma: step of the weights, at least 0.
        sigma_gamma: by which power of t that step falls, at least 0.
        rho: regularisation of the weights, at least 0.
        reduction: ``"mean"``, weights that sum to 1, as in the paper and LibMTL; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        weights: [K] float64.
        steps: float64, steps done.
    """

    formula_gives = "mean"
    weights: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: float = 0.5,
        sigma: float = 0.5,
        gamma: float = 0.1,
        sigma_gamma: float = 0.5,
        rho: float = 0.0,
        reduction: str = "mean",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_range("beta", beta, 0.0, 1.0, open_low=True)
        for name, value in (("sigma", sigma), ("gamma", gamma), ("sigma_gamma", sigma_gamma), ("rho", rho)):
            check_range(name, value, 0.0)
        self.beta, self.sigma = beta, sigma
        self.gamma, self.sigma_gamma = gamma, sigma_gamma
        self.rho = rho
        self.register_buffer("weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.averages = GradientState("MoCo")

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        check_num_tasks(len(losses), len(self.weights))
        step = self.steps + 1
        scale = 1.0 if gradients.losses.scale is None else gradients.losses.scale.double()
        beta, gamma = self.beta * step**-self.sigma, self.gamma * step**-self.sigma_gamma
        norms = gram.diagonal().sqrt()
        factors = torch.where(norms > 0, beta * losses / norms, 0.0)
        averages = self.averages.average_in(gradients, 1 - beta, factors / scale, usable)
        slope = ops.gram(averages, len(losses)) @ self.weights + self.rho * self.weights
        self.weights.copy_(torch.where(usable == 1, (self.weights - gamma * slope).softmax(0), self.weights))
        self.steps.copy_(torch.where(usable == 1, step, self.steps))
        weights = self.reduction_factor(len(losses)) * self.weights
        gradients.write(combined_states(averages, gradients, weights * scale), usable.reshape(1))
        return torch.where(usable == 1, weights, usable)
