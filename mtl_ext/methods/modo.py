"""MoDo: gradient descent on the weights with two independent batches, on the parameters with a third."""

from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import check_range
from mtl_ext.methods.several_batches import SeveralBatches


class MoDo(SeveralBatches):
    """Multi-objective gradient with double sampling (Chen et al. 2023, Algorithm 1): three batches per step.

    ``w <- project(w - gamma (J1 J2^T + rho I) w)`` onto the probability simplex, then the combined gradient ``J3^T w``,
    J1, J2 and J3 being the tasks' gradients on three independent batches. w starts at 1 / K and is kept. The scale of
    the gradients matters, gamma being a step in units of their square. LibMTL has gamma = 1e-3.

    Pass ``losses=[losses1, losses2, losses3]``, and ``features=[z1, z2, z3]`` where they are wanted; at feature level
    products are those of the gradients summed over the batch.

    Args:
        num_tasks: K.
        gamma: step of the weights, at least 0.
        rho: regularisation of the weights, at least 0.
        reduction: ``"mean"``, weights that sum to 1, as in the paper; or ``"sum"``: times K.
        weight_heads: weigh the heads' losses as well, as in the paper.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        gamma: float = 0.1,
        rho: float = 0.1,
        reduction: str = "mean",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("gamma", gamma, 0.0)
        check_range("rho", rho, 0.0)
        self.gamma = gamma
        self.rho = rho

    def updated(self, products: Tensor) -> Tensor:
        """One projected step."""
        slope = products @ self.weights + self.rho * self.weights
        return ops.project_simplex(self.weights - self.gamma * slope)[0]
