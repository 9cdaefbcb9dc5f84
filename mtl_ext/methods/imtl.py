"""IMTL: impartial in the losses and in the gradients."""

from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod
from mtl_ext.ops.kxk import NON_FINITE


class IMTL(GramMethod):
    """Impartial multi-task learning (Liu et al. 2021, Algorithm 1): IMTL-L scales the losses, IMTL-G their gradients.

    The losses become ``exp(s_k) L_k - s_k`` with trained s; the shared parameters get the combination of the scaled
    losses' gradients that projects equally on all of them (`IMTLG`), the heads their own scaled loss's gradient.
    LibMTL does the same.

    Args:
        num_tasks: K.
        reduction: ``"mean"``, weights of the scaled losses' gradients that sum to 1, as in the paper and LibMTL; or
            ``"sum"``: times K. It is about the shared parameters: heads and scales each have one loss.
        weight_heads: train heads on their scaled losses, as in the paper, or on the losses themselves.
        nonfinite: see `Method`.

    Attributes:
        log_scales: [K] float32, s; a parameter that starts at 0: give ``method.parameters()`` to the optimizer, in a
            group without weight decay.
        status: of the last solution, see :func:`mtl_ext.ops.imtl_g`.
    """

    formula_gives = "mean"

    def __init__(
        self, num_tasks: int, *, reduction: str = "mean", weight_heads: bool = True, nonfinite: str = "raise"
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        self.log_scales = nn.Parameter(torch.zeros(num_tasks))
        self.status: Tensor | None = None

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The impartial weights of the scaled losses' gradients, times the scales."""
        if len(gram) != len(self.log_scales):
            raise ValueError(f"losses has {len(gram)} tasks, expected num_tasks = {len(self.log_scales)}")
        scales = self.log_scales.detach().double().exp()
        weights, _, self.status = ops.imtl_g(scales[:, None] * gram * scales, self.eps)
        return weights * scales

    def head_weights(self, weights: Tensor) -> Tensor:
        """The scales; 0 or NaN where the step has no weights."""
        usable = weights.isfinite().all() & (self.status != NON_FINITE)
        return torch.where(usable, self.log_scales.detach().double().exp(), weights)

    def _combine(self, gradients: TaskGradients, *arguments: Any) -> Tensor:
        weights = super()._combine(gradients, *arguments)
        losses = gradients.losses
        slope = self.head_weights(weights) * losses.values - 1
        slope = slope if losses.scale is None else slope * losses.scale
        slope = torch.where((self.status != NON_FINITE) & slope.isfinite().all(), slope, weights * 0)
        slope = slope.to(self.log_scales.dtype)
        self.log_scales.grad = slope if self.log_scales.grad is None else self.log_scales.grad + slope
        return weights
