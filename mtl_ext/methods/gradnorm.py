"""GradNorm: weights that bring the norms of the weighted gradients to a common target."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mtl_ext.gradients import ParameterGradients, TaskGradients
from mtl_ext.methods.base import check_num_tasks, check_range
from mtl_ext.methods.grad_method import GramMethod
from mtl_ext.methods.state import Adam, keep_finite

LEAST_WEIGHT = 1e-3


class GradNorm(GramMethod):
    """Gradient normalisation (Chen et al. 2018): slower tasks get larger gradients, by weights trained to that end.

    After each step, one Adam step on ``sum_k | w_k |g_k| - T_k |``, ``T_k = mean_j(w_j |g_j|) r_k^alpha`` held
    constant, ``r_k = (L_k / L_k(0)) / mean_j(L_j / L_j(0))``, L(0) the losses of the first call; then the weights are
    kept above 0.001 and scaled to sum K. So a call's gradient has the weights from before it, as in Algorithm 1; the
    first ones are 1. The gradient of w is divided by the mean norm, which Adam does not see but for its epsilon.

    Peers differ: LibMTL takes the norms of all shared parameters (``layer="all"``) and trains the weights with the
    network's optimizer; one public re-implementation has the exponent's sign reversed.

    Args:
        num_tasks: K.
        alpha: strength of the pull to equal training speeds; 0: equal norms.
        lr: Adam's learning rate for the weights.
        layer: where the norms are taken. ``"last"``: at the last matrix (or kernel) of ``shared`` that all tasks
            reach, and the vectors behind it; ``"all"``: at all that is shared; or parameters that are among ``shared``.
            At feature level always at the features.
        reduction: ``"sum"``, weights that sum to K, as in the paper; or ``"mean"``: to 1.
        weight_heads: see `GradMethod`; True by default, since the paper minimises ``sum_k w_k L_k``.
        nonfinite: see `Method`.

    Attributes:
        weights: [K] float64.
    """

    compares = False
    weights: Tensor
    first: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        alpha: float = 1.5,
        lr: float = 0.025,
        layer: str | Iterable[Tensor] = "last",
        reduction: str = "sum",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_range("lr", lr, 0.0)
        check_range("alpha", alpha, 0.0)
        if isinstance(layer, str) and layer not in ("last", "all"):
            raise ValueError(f"layer is {layer!r}, expected 'last', 'all' or parameters")
        self.alpha = alpha
        self.layer = layer if isinstance(layer, str) else [*layer]
        self.adam = Adam(num_tasks, lr=lr)
        self.register_buffer("weights", torch.ones(num_tasks, dtype=torch.float64))
        self.register_buffer("first", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        check_num_tasks(len(losses), len(self.weights))
        chosen = self._chosen(gradients)
        return super()._combine(gradients, gram if chosen is None else gradients.gram(chosen), losses, usable)

    def _chosen(self, gradients: TaskGradients) -> list[int] | None:
        """Indices of the targets where the norms are taken; None for all."""
        targets = gradients.targets
        if self.layer == "all" or not isinstance(gradients, ParameterGradients):
            return None
        if not isinstance(self.layer, str):
            wanted = {id(param) for param in self.layer}
            chosen = [p for p, target in enumerate(targets) if id(target) in wanted]
            if len(chosen) != len(wanted) or not chosen:
                raise ValueError(f"layer holds {len(wanted)} parameters, {len(chosen)} of which are among shared")
            return chosen
        count = len(targets)
        common = [all(grad.numel() > 0 for grad in gradients.tensors[p::count]) for p in range(count)]
        last = next((p for p in reversed(range(count)) if targets[p].dim() > 1 and common[p]), None)
        if last is None:
            return None
        behind = next((p for p in range(last + 1, count) if targets[p].dim() > 1), count)
        return list(range(last, behind))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The weights so far; those of the next call are found from these norms and losses."""
        weights = self.weights.clone()
        norms = gram.diagonal().sqrt()
        mean_norm = (weights * norms).mean()
        rates = training_rates(self.first, losses)
        pull = (weights * norms - mean_norm * rates**self.alpha).sign() * norms / mean_norm
        self.adam.step(self.weights, torch.where(mean_norm == 0, 0.0, pull))
        positive = self.weights.clamp(min=LEAST_WEIGHT)
        keep_finite(self.weights, len(positive) * positive / positive.sum())
        return weights


def training_rates(first: Tensor, losses: Tensor) -> Tensor:
    """Each loss relative to the first ones, over the mean of that: ``r_k``, above 1 for tasks that train slowly.

    Args:
        first: [K] float64, L(0); NaN until these losses, the first, are written there.
        losses: [K] float64.

    Returns:
        [K] float64.
    """
    first.copy_(torch.where(first.isnan().any(), losses, first))
    ratios = torch.where(first == 0, 1.0, losses / first).clamp(min=0.0)
    return torch.where(ratios.sum() > 0, ratios / ratios.mean(), 1.0)
