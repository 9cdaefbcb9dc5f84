"""Geometric mean of the losses."""

from torch import Tensor

from mtl_ext.methods.loss_method import LossMethod, log_of


class GLS(LossMethod):
    """Geometric loss strategy (Chennupati et al. 2019): minimise the geometric mean ``(prod_k L_k)^(1/K)``.

    Its exact gradient: the weights are ``mean / (K L_k)``. Losses are at least 0; one that is exactly 0 is left out,
    its factor being 1. Peers differ: LibMTL's weights ``L_k / (K prod L)`` are not the derivative.

    Args:
        num_tasks: K, to be checked where it is known.
        reduction: ``"mean"`` as above and in the peers, or ``"sum"``: times K.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The geometric mean."""
        return log_of(losses).mean().exp()
