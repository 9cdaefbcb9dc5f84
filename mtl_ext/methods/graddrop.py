"""GradDrop: per element, only the gradients of one sign."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import FeatureGradients, Features, TaskGradients
from mtl_ext.losses import Losses
from mtl_ext.methods.base import StepOptions, check_choice, check_range
from mtl_ext.methods.grad_method import GradMethod


class GradDrop(GradMethod):
    """Gradient sign dropout (Chen et al. 2020, Algorithm 1): per element a sign is drawn, and its gradients pass.

    With the purity ``p = (1 + sum_k g_k / sum_k |g_k|) / 2`` of an element and u uniform in [0, 1), positive gradients
    pass where ``f(p) > u`` and negative ones where ``f(p) < u``; the combined gradient is
    ``sum_k (l_k + (1 - l_k) M_k) g_k``, M_k telling whether g_k passes and l_k being the leak. Where the sum is
    taken over zeros alone, nothing passes. TorchJD and LibMTL do not keep the norm.

    At feature level, as first proposed, one sign is drawn per position of a sample: the purity and M_k are those of
    ``sign(z) g_k`` summed over the batch (dimension 0), and M_k masks g_k in every sample.

    Draws: :func:`mtl_ext.ops.graddrop`'s Philox numbers of ``(seed, step)``; the step advances with every call that
    combines, skipped or not. The returned weights are equal: each element has its own.

    Args:
        f: ``"linear"``: ``kappa (p - 1/2) + 1/2``; ``"sigmoid"``: ``sigmoid(4 kappa (p - 1/2))``.
        kappa: steepness of f; 1 with ``"linear"`` is the identity, as in the paper's code.
        leak: the share of the gradients that always passes, in [0, 1]; one number, or one per task.
        keep_grad_norm: scale the combined gradient to the norm of ``sum_k g_k``, as the paper's code does.
        reduction: ``"sum"`` as in the paper and the peers, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`.
        seed: of the draws, a 64-bit integer.
        nonfinite: see `Method`.

    Attributes:
        seed: [2] int64: seed and step.
    """

    seed: Tensor
    leak: Tensor

    def __init__(
        self,
        *,
        f: str = "linear",
        kappa: float = 1.0,
        leak: float | Sequence[float] = 0.0,
        keep_grad_norm: bool = False,
        reduction: str = "sum",
        weight_heads: bool = False,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_choice("f", f, ("linear", "sigmoid"))
        check_range("kappa", kappa, 0.0)
        leaks = [leak] if isinstance(leak, (int, float)) else list(leak)
        for index, value in enumerate(leaks):
            check_range(f"leak[{index}]", value, 0.0, 1.0)
        self.f = f
        self.kappa = kappa
        self.keep_grad_norm = keep_grad_norm
        self.register_buffer("leak", torch.tensor(leaks, dtype=torch.float64), persistent=False)
        self.register_buffer("seed", torch.tensor([seed, 0]))

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        """Advances the draws' step as well."""
        try:
            return super()._step(losses, shared, features, options)
        finally:
            if options.combine:
                self.seed[1].add_(1)

    def combination(self, gradients: TaskGradients, gram: Tensor, losses: Tensor) -> tuple[list[Tensor], Tensor]:
        """The masked sum; at parameter level written over the gradients of the first task that has a parameter."""
        num_tasks, num_params = len(gram), len(gradients.targets)
        if len(self.leak) not in (1, num_tasks):
            raise ValueError(f"losses has {num_tasks} tasks, expected len(leak) = {len(self.leak)}")
        options: dict[str, Any] = {
            "seed": self.seed,
            "leak": self.leak.expand(num_tasks).contiguous(),
            "sigmoid": self.f == "sigmoid",
            "kappa": self.kappa,
            "keep_grad_norm": self.keep_grad_norm,
        }
        if isinstance(gradients, FeatureGradients):
            combined = ops.graddrop_features(gradients.tensors, num_tasks, gradients.targets, **options)
        else:
            columns = [gradients.tensors[param::num_params] for param in range(num_params)]
            combined = [next((grad for grad in column if grad.numel() > 0), column[0]) for column in columns]
            ops.graddrop_(combined, gradients.tensors, num_tasks, **options)
        return combined, gram.new_ones(num_tasks)
