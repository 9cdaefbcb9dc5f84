"""COSMOS: a weighted sum with a preference for losses along a ray."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from mtl_ext.methods.base import check_range, task_values
from mtl_ext.methods.loss_method import LossMethod


class COSMOS(LossMethod):
    """Conditioned one-shot multi-objective search (Ruchte & Grabocka 2021): ``sum_k r_k L_k - lambda cos(r, L)``.

    The cosine draws the vector of losses towards the direction of the preference r. In the paper the network also
    reads r, drawn from a Dirichlet distribution for every batch: write it, ``method.preference.copy_(draw)``, before
    the call. A weight is below 0 where the cosine outweighs the sum. TorchJD does the same; no other peer has it.

    Args:
        num_tasks: K.
        preference: r, K numbers, at least 0; 1 / K by default.
        lambda_: of the cosine; set it for the losses at hand (TorchJD has no default).
        reduction: ``"mean"`` as above and in TorchJD, since r sums to 1; or ``"sum"``: times K.
        nonfinite: see `Method`.

    Attributes:
        preference: [K] float64.
    """

    formula_gives = "mean"
    preference: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        preference: Sequence[float] | Tensor | None = None,
        lambda_: float = 1.0,
        reduction: str = "mean",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("lambda_", lambda_, 0.0)
        self.lambda_ = lambda_
        preference = [1 / num_tasks] * num_tasks if preference is None else preference
        self.register_buffer("preference", task_values("preference", preference, num_tasks, low=0.0))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum less the cosine."""
        return self.preference @ losses - self.lambda_ * functional.cosine_similarity(self.preference, losses, dim=0)
