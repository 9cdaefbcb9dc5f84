"""Equal weighting."""

from torch import Tensor

from mtl_ext.methods.loss_method import LossMethod


class EW(LossMethod):
    """Equal weighting (also Uniform, linear scalarisation): minimise ``sum_k L_k``.

    ``.grad`` is bit for bit that of ``sum(losses).backward()``. The peers have it as Sum, EW or LS.

    Args:
        num_tasks: K, to be checked where it is known.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K, TorchJD's ``Mean``.
        nonfinite: see `Method`.
    """

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The sum."""
        return losses.sum()
