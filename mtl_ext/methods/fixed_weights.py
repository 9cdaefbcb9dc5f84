"""Fixed weights."""

import itertools
from collections.abc import Iterator, Sequence

from torch import Tensor

from mtl_ext.methods.base import check_range, task_values
from mtl_ext.methods.loss_method import LossMethod


class FixedWeights(LossMethod):
    """Fixed weights (linear scalarisation): minimise ``sum_k w_k L_k`` with weights set by hand or found on a grid.

    TorchJD calls it Constant. The default is the setting of auxiliary learning that has one primary task.

    Args:
        num_tasks: K.
        weights: K numbers, at least 0; by default 1 for the first task and 0.1 for the others.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        weights: [K] float64.
    """

    weights: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        weights: Sequence[float] | Tensor | None = None,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        weights = [1.0] + [0.1] * (num_tasks - 1) if weights is None else weights
        self.register_buffer("weights", task_values("weights", weights, num_tasks, low=0.0))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return self.weights @ losses

    @staticmethod
    def grid(
        num_tasks: int, values: Sequence[float] = (0.1, 0.2, 0.3, 0.4), primary: int = 0
    ) -> Iterator[tuple[float, ...]]:
        """All choices of weights for a grid search, each to train once with.

        Args:
            num_tasks: K.
            values: what an auxiliary task's weight can be.
            primary: the task with weight 1.

        Yields:
            ``len(values) ** (K - 1)`` tuples of K weights.

        Raises:
            ValueError: there is no such primary task.
        """
        check_range("primary", primary, 0, num_tasks - 1)
        for others in itertools.product(values, repeat=num_tasks - 1):
            yield (*others[:primary], 1.0, *others[primary:])
