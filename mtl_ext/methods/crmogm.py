"""Correlation-reduced gradient manipulation: a moving average of another method's weights."""

import torch
from torch import Tensor

from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod
from mtl_ext.methods.mgda import MGDA


class CRMOGM(GramMethod):
    """A moving average of another method's weights (Zhou et al. 2022): ``w <- alpha w + (1 - alpha) w_method``.

    It makes the weights nearly independent of the batch's noise, which convergence proofs need. The first call's are
    the method's own. There is no ``reduction``: the other method's is part of the weights that are averaged. TorchJD
    does the same on top of any weighting.

    Args:
        method: whose weights are averaged; `MGDA` by default. Its `applied_weights` sees the whole Gram matrix.
        alpha: share of the earlier weights.
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`; the inner method's own setting has no effect.
    """

    def __init__(
        self,
        method: GramMethod | None = None,
        *,
        alpha: float = 0.9,
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("alpha", alpha, 0.0, 1.0)
        method = MGDA() if method is None else method
        if not isinstance(method, GramMethod):
            raise ValueError(
                f"method is {method!r}, expected one whose weights depend on the Gram matrix: a GramMethod"
            )
        self.method = method
        self.compares = method.compares  # type: ignore[misc]  # of the instance: as the inner method does
        self.alpha = alpha
        self.average: Tensor | None = None

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The averaged weights."""
        self.method.eps = self.eps
        new = self.method.applied_weights(gram, losses)
        if self.average is None:
            self.average = torch.full_like(new, torch.nan)
        elif len(self.average) != len(new):
            raise ValueError(f"losses has {len(new)} tasks, earlier calls had {len(self.average)}")
        average = self.average.to(new.device)
        mixed = torch.where(average.isnan().any(), new, self.alpha * average + (1 - self.alpha) * new)
        self.average = torch.where(gram.isfinite().all() & mixed.isfinite().all(), mixed, average)
        return mixed

    def end_epoch(self) -> None:
        """Passes it on."""
        self.method.end_epoch()

    def get_extra_state(self) -> Tensor | None:
        """The averaged weights; their number is not known at construction."""
        return self.average

    def set_extra_state(self, state: Tensor | None) -> None:
        """Restores the averaged weights."""
        self.average = None if state is None else state.clone()
