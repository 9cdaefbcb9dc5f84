"""OL-AUX: auxiliary weights that follow the agreement with the primary task."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.auxiliary import AuxiliaryMethod
from mtl_ext.methods.base import check_range


class OLAUX(AuxiliaryMethod):
    """Online learning for auxiliary losses (Lin et al. 2019): weights follow the products with the primary gradient.

    ``g_primary + sum_a w_a g_a``; after every n steps ``w_a <- max(0, w_a + lr sum <g_primary, g_a>)`` over these n
    steps, which lowers the primary loss after them. Only a description of the paper is at hand; in our reading of it
    both gradients of a product are those of the same step, and a product counts once. Their scale matters: the paper
    takes the network's learning rate for the weights' too, which this class does not know. Of the shared parameters,
    or of features.

    Args:
        num_tasks: K.
        primary: name or index of the primary task, or several, whose summed gradient is meant above.
        initial: weight of an auxiliary task at the start, at least 0.
        lr: learning rate of the weights.
        interval: n.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`; True by default, since the weighted sum of the losses is minimised.
        nonfinite: see `Method`; a step that is not finite counts for none.

    Attributes:
        weights: [K] float64, of the next step; the primary tasks' are 1 from the first step on.
        products: [K] float64, the sum since the last update.
        steps: float64, steps so far.
    """

    weights: Tensor
    products: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | Sequence[str | int] = 0,
        initial: float = 0.1,
        lr: float = 1e-3,
        interval: int = 5,
        reduction: str = "sum",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            num_tasks, primary=primary, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )
        check_range("initial", initial, 0.0)
        check_range("lr", lr, 0.0)
        check_range("interval", interval, 1)
        self.lr = lr
        self.interval = interval
        self.register_buffer("weights", torch.full((num_tasks,), initial, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The weights so far; this step's products count for later ones."""
        primary = self.primary_tasks(gram)
        weights = torch.where(primary == 1, 1.0, self.weights)
        products = self.products + gram @ primary
        steps = self.steps + 1
        due = steps % self.interval == 0
        moved = torch.where(due & (primary == 0), (weights + self.lr * products).clamp(min=0.0), weights)
        finite = gram.isfinite().all() & moved.isfinite().all()
        new = ((self.weights, moved), (self.products, torch.where(due, 0.0, products)), (self.steps, steps))
        for state, value in new:
            state.copy_(torch.where(finite, value, state))
        return weights
