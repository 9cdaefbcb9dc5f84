"""Random loss weighting."""

import torch
from torch import Tensor

from mtl_ext.methods.base import RandomMethod, check_choice
from mtl_ext.methods.loss_method import LossMethod

DISTRIBUTIONS = ("normal", "uniform", "dirichlet", "bernoulli", "constrained_bernoulli")


class RLW(RandomMethod, LossMethod):
    """Random loss weighting (Lin et al. 2022): ``w = softmax(eps)``, eps standard normal, drawn anew in every step.

    Algorithm 1 of the paper; the weights sum to 1. Draws from the generator per call, by distribution: ``"normal"`` and
    ``"uniform"``, K float32 values, then softmax; ``"dirichlet"`` (uniform on the simplex), K float32 exponentials
    divided by their sum; ``"bernoulli"``, K int64 values of 0 or 1, anew until one is 1, divided by their sum;
    ``"constrained_bernoulli"``, one int64, the task that gets all the weight.

    Peers differ: unitary-scalarization's weights sum to K; LibMTL 1.1.5 does not normalise Bernoulli weights and puts
    Dirichlet ones through a softmax; TorchJD has the normal distribution, drawn in the losses' dtype.

    Args:
        distribution: as above.
        reduction: ``"mean"``, weights that sum to 1, as in the paper; or ``"sum"``: times K.
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.
    """

    formula_gives = "mean"

    def __init__(
        self,
        *,
        distribution: str = "normal",
        reduction: str = "mean",
        generator: torch.Generator | None = None,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(generator=generator, seed=seed, reduction=reduction, nonfinite=nonfinite)
        check_choice("distribution", distribution, DISTRIBUTIONS)
        self.distribution = distribution

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The randomly weighted sum."""
        return self._draw(len(losses)).to(losses.device) @ losses

    def _draw(self, count: int) -> Tensor:
        """Weights [K] float64."""
        if self.distribution == "normal":
            return torch.randn(count, generator=self.generator).double().softmax(0)
        if self.distribution == "uniform":
            return torch.rand(count, generator=self.generator).double().softmax(0)
        if self.distribution == "dirichlet":
            draws = torch.empty(count).exponential_(generator=self.generator).double()
            return draws / draws.sum()
        if self.distribution == "constrained_bernoulli":
            chosen = torch.randint(count, (1,), generator=self.generator)
            return (torch.arange(count) == chosen).double()
        draws = torch.zeros(count).double()
        while not draws.any():
            draws = torch.randint(2, (count,), generator=self.generator).double()
        return draws / draws.sum()
