"""Random weighting of the gradients."""

import torch
from torch import Tensor

from mtl_ext.methods.base import RandomMethod
from mtl_ext.methods.grad_method import GramMethod


class RGW(RandomMethod, GramMethod):
    """Random gradient weighting (Lin et al. 2022, Algorithm 2): ``w = softmax(eps)`` on gradients, eps standard normal.

    One draw of K float32 values from the generator per call, as `RLW` draws them. TorchJD's ``Random`` is the same with
    a draw in the gradients' dtype from the global generator. Other than with `RLW`, heads are trained on their own
    losses.

    Args:
        reduction: ``"mean"``, weights that sum to 1, as in the paper; or ``"sum"``: times K.
        weight_heads: see `GradMethod`.
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        reduction: str = "mean",
        weight_heads: bool = False,
        generator: torch.Generator | None = None,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            generator=generator, seed=seed, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The softmax of a normal draw."""
        return torch.randn(len(gram), generator=self.generator).double().softmax(0).to(gram.device)
