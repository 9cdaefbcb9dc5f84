"""GCS: auxiliary tasks count while they agree with the primary one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.auxiliary import AuxiliaryMethod, primary_cosines


class GCS(AuxiliaryMethod):
    """Gradient cosine similarity (Du et al. 2018): an auxiliary task counts in the steps in which it agrees.

    ``g_primary + sum_a 1[cos(g_primary, g_a) > 0] g_a``, or weighted, ``max(0, cos)`` in place of 0 or 1. Of the
    shared parameters, as in the paper, or of features. A primary gradient of 0 agrees with nobody.

    Args:
        num_tasks: K.
        primary: name or index of the primary task, or several, with whose summed gradient the others are compared.
        weighted: weigh an auxiliary task by its cosine instead of taking it whole.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`; in the paper heads are trained on their own losses.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | Sequence[str | int] = 0,
        weighted: bool = False,
        reduction: str = "sum",
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            num_tasks, primary=primary, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )
        self.weighted = weighted

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """1 for primary tasks, 0, 1 or the cosine for others."""
        primary = self.primary_tasks(gram)
        cosines = primary_cosines(gram, primary)
        agreement = cosines.clamp(min=0.0) if self.weighted else (cosines > 0).double()
        return torch.where(primary == 1, 1.0, agreement)
