"""ExcessMTL: weights by estimated excess risks."""

import torch
from torch import Tensor

from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_choice, check_num_tasks, check_range
from mtl_ext.methods.grad_method import GradMethod
from mtl_ext.methods.gradient_state import GradientState, wide


class ExcessMTL(GradMethod):
    """Robust multi-task learning with excess risks (He et al. 2024, Eq. 6-9): tasks far from their optimum gain weight.

    With S_k the running sum of task k's squared gradients, element by element, its excess risk is estimated by
    ``r_k = sum(g_k^2 / sqrt(S_k + 1e-7))``. The weights are ``p_k <- p_k exp(eta r_k / r0_k)``, normalised to sum 1 and
    1/K at first, r0 being the estimate of the first step. Peers differ in that step, see ``first_step``. The state
    takes as much memory as the K gradients; at feature level it belongs to the places in the batch, see
    `GradientState`. Because of 1e-7, the scale of the gradients matters where their squares are that small.

    Args:
        num_tasks: K.
        step_size: eta, above 0; None: 1e-2 with ``"keep"``, 1.0 with ``"raw"``, as the peers have it.
        first_step: ``"keep"`` (LibMTL): the first step only sets r0, of which at least 1e-7 is used. ``"raw"``
            (TorchJD): the first step sets r0 and updates p with r itself, later ones with ``r / (r0 + 1e-7)``.
        warmup: how many steps leave p as it is; r0 is then the mean of their estimates, in both forms.
        reduction: ``"sum"``: weights K p, or ``"mean"``: p itself; None: as the peers have it, the sum with
            ``"keep"`` and the mean with ``"raw"``.
        weight_heads: weigh the heads' losses as well, as in the paper.
        nonfinite: see `Method`.

    Attributes:
        weights: [K] float64, p.
        first: [K] float64, r0, complete after the warm-up.
        steps: float64, steps done.
    """

    formula_gives = "mean"
    weights: Tensor
    first: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        step_size: float | None = None,
        first_step: str = "keep",
        warmup: int = 0,
        reduction: str | None = None,
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        if reduction is None:
            reduction = "sum" if first_step == "keep" else "mean"
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_choice("first_step", first_step, ("keep", "raw"))
        check_range("warmup", warmup, 0)
        self.step_size = (1e-2 if first_step == "keep" else 1.0) if step_size is None else step_size
        check_range("step_size", self.step_size, 0.0, open_low=True)
        self.first_step = first_step
        self.warmup = warmup
        self.register_buffer("weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64))
        self.register_buffer("first", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))
        self.squares = GradientState("ExcessMTL")

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        check_num_tasks(len(losses), len(self.weights))
        updated, first = self._updated(self._risks(gradients, usable))
        for buffer, value in ((self.weights, updated), (self.first, first), (self.steps, self.steps + 1)):
            buffer.copy_(torch.where(usable == 1, value, buffer))
        weights = torch.where(usable == 1, self.reduction_factor(len(losses)) * self.weights, usable)
        gradients.combine(weights)
        return weights

    def _risks(self, gradients: TaskGradients, usable: Tensor) -> Tensor:
        """Adds the squares to the state and estimates the excess risks [K] from both."""
        state, count = self.squares.like(gradients), len(gradients.targets)
        scale = 1.0 if gradients.losses.scale is None else gradients.losses.scale.double()
        risks = []
        for k in range(len(gradients.losses)):
            risk = usable.new_zeros(())
            for total, grad in zip(state[k * count : (k + 1) * count], gradients.tensors[k * count :], strict=False):
                if grad.numel() > 0:
                    square = (grad.to(wide(grad.dtype)) / scale).square().where(usable == 1, 0.0)
                    total.add_(square)
                    risk = risk + (square / (total + 1e-7).sqrt()).sum(dtype=torch.float64)
            risks.append(risk)
        return torch.stack(risks)

    def _updated(self, risks: Tensor) -> tuple[Tensor, Tensor]:
        """The weights after this step, and the estimates that later ones are compared with."""
        keep = self.first_step == "keep"
        waiting = max(self.warmup, 1 if keep else 0)
        collecting = self.steps < max(waiting, 1)
        ratios = risks / (self.first.clamp_min(1e-7) if keep else self.first + 1e-7)
        updated = (self.weights.log() + self.step_size * torch.where(collecting, risks, ratios)).softmax(0)
        first = torch.where(collecting, self.first + risks / max(waiting, 1), self.first)
        return torch.where(self.steps < waiting, self.weights, updated), first
