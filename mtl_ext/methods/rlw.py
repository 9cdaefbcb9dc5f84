"""Random loss weighting."""

import torch
from torch import Tensor

from mtl_ext.methods.base import RandomMethod
from mtl_ext.methods.loss_method import LossMethod


class RLW(RandomMethod, LossMethod):
    """Random loss weighting (Lin et al. 2022): ``w = softmax(eps)``, eps standard normal, drawn anew in every step.

    One draw of K float32 values from the generator per call. The weights sum to 1, as in the paper; LibMTL does the
    same.

    Args:
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.
    """

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The randomly weighted sum."""
        weights = torch.randn(len(losses), generator=self.generator).double().softmax(0)
        return weights.to(losses.device) @ losses
