"""Scale-invariant linear scalarisation."""

from torch import Tensor

from mtl_ext.methods.loss_method import LossMethod, log_of


class SI(LossMethod):
    """Scale-invariant linear scalarisation: minimise ``sum_k log L_k``.

    The weights are ``1 / L_k``, whatever the unit of a loss. Used as a baseline by Navon et al. (2022). Losses are at
    least 0; one that is exactly 0 is left out. Peers differ: SamsungLabs/MTL has ``log(1 + L_k)``, which is not
    scale-invariant.

    Args:
        num_tasks: K, to be checked where it is known.
        reduction: ``"sum"`` as above and in the peers, or ``"mean"``: divided by K.
        nonfinite: see `Method`.
    """

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The sum of the logarithms."""
        return log_of(losses).sum()
