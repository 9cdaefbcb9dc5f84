"""SDMGrad: weights near a preferred direction, by stochastic gradients of independent batches."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_range
from mtl_ext.methods.several_batches import SeveralBatches


class SDMGrad(SeveralBatches):
    """Stochastic direction-oriented multi-objective descent (Xiao et al. 2023, Algorithm 1): three batches per step.

    ``A = J1 J2^T / s^2`` with ``s = mean_k sqrt(max(0, (J1 J2^T)_kk))``, J1 and J2 being the tasks' gradients on two
    independent batches (A = 0 where s = 0). Then ``iterations`` times ``u <- u / 2 + A (w + lam / K)``, u
    starting at 0, and ``w <- project(w - lr u)`` onto the probability simplex. The combined gradient is
    ``J3^T (w + lam / K) / (1 + lam)`` with the gradients of a third batch. w starts at 1 / K and is kept. This is the
    iteration of the paper's code (which adds 1e-8 to s^2), not the minimisation of a quadratic form. LibMTL has lr = 5.

    Pass ``losses=[losses1, losses2, losses3]``, and ``features=[z1, z2, z3]`` where they are wanted; at feature level
    products are those of the gradients summed over the batch.

    Args:
        num_tasks: K.
        lam: pull to the mean of the gradients, at least 0.
        lr: step of the weights, at least 0.
        iterations: steps of the weights per call.
        reduction: ``"mean"``, weights that sum to 1, as in the paper; or ``"sum"``: times K.
        weight_heads: weigh the heads' losses as well, as in the paper.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        lam: float = 0.3,
        lr: float = 10.0,
        iterations: int = 20,
        reduction: str = "mean",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("lam", lam, 0.0)
        check_range("lr", lr, 0.0)
        check_range("iterations", iterations, 1)
        self.lam = lam
        self.lr = lr
        self.iterations = iterations

    def updated(self, products: Tensor) -> Tensor:
        """Projected steps with momentum."""
        length = products.diagonal().clamp_min(0.0).sqrt().mean()
        normalised = torch.where(length > 0, products / length.square(), 0.0)
        weights, velocity = self.weights, torch.zeros_like(self.weights)
        for _ in range(self.iterations):
            velocity = velocity / 2 + normalised @ (weights + self.lam / len(weights))
            weights = ops.project_simplex(weights - self.lr * velocity)[0]
        return weights

    def applied(self, weights: Tensor) -> Tensor:
        """The kept weights, pulled to the mean."""
        return (weights + self.lam / len(weights)) / (1 + self.lam)
