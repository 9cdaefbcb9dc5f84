"""Particle filter over the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.base import RandomMethod, check_range, task_values
from mtl_ext.methods.loss_method import LossMethod


class PUW(RandomMethod, LossMethod):
    """Particle filter over the simplex of weights, scored by validation performance (Aghajanzadeh et al. 2023).

    Only a description of the paper is at hand, and no peer has it. The algorithm here is our reading of it: each of N
    particles, weights with sum K, trains in turn from one `update_performance` to the next, its score being what the
    mean performance has gained. When all have had their turn, N are drawn anew with the probabilities
    ``softmax(standardised score / T)`` (systematic resampling), and every weight is multiplied by
    ``exp(spread * normal)`` and scaled to sum K again. All weights are 1 until the warm-up is over, and in a loop that
    never calls `update_performance`.

    Draws: N * K float64 exponentials at construction (particles uniform on the simplex); at each resampling one float64
    uniform and N * K float64 normals. The state is saved.

    Args:
        num_tasks: K.
        num_particles: N, at least 2.
        warmup: calls of `update_performance` before the first particle trains; in the paper 3% of the epochs.
        temperature: T; the smaller, the more the best particles multiply.
        spread: of the noise after resampling.
        reduction: ``"sum"``, weights that sum to K as above, or ``"mean"``: to 1.
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.

    Attributes:
        particles: [N, K] float64.
        scores: [N] float64, of this generation.
        calls: int64 scalar, how often performance was updated.
    """

    wants_performance = True
    particles: Tensor
    scores: Tensor
    performance: Tensor
    calls: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        num_particles: int = 8,
        warmup: int = 1,
        temperature: float = 1.0,
        spread: float = 0.1,
        reduction: str = "sum",
        generator: torch.Generator | None = None,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(generator=generator, seed=seed, num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("num_particles", num_particles, 2)
        check_range("warmup", warmup, 1)
        check_range("temperature", temperature, 0.0, open_low=True)
        check_range("spread", spread, 0.0)
        self.warmup = warmup
        self.temperature = temperature
        self.spread = spread
        draws = torch.empty(num_particles, num_tasks, dtype=torch.float64).exponential_(generator=self.generator)
        self.register_buffer("particles", num_tasks * draws / draws.sum(1, keepdim=True))
        self.register_buffer("scores", torch.zeros(num_particles, dtype=torch.float64))
        self.register_buffer("performance", torch.zeros((), dtype=torch.float64))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The sum, weighted by the particle whose turn it is."""
        turn = (self.calls - self.warmup) % len(self.particles)
        weights = torch.where(self.calls < self.warmup, 1.0, self.particles[turn])
        return weights @ losses

    def update_performance(self, values: Sequence[float] | Tensor) -> None:
        """Scores the particle that has trained since the last call, for example after every epoch.

        Args:
            values: the tasks' performances on validation data, K numbers, larger being better, of comparable size.

        Raises:
            ValueError: another number of values, or one that is not finite.
        """
        performance = task_values("values", values, self.particles.shape[1]).mean().to(self.performance.device)
        turn = int(self.calls) - self.warmup
        if turn >= 0:
            last = turn % len(self.particles) == len(self.particles) - 1
            self.scores[turn % len(self.particles)] = performance - self.performance
            if last:
                self._resample()
        self.performance.copy_(performance)
        self.calls.add_(1)

    def _resample(self) -> None:
        count, num_tasks = self.particles.shape
        scores = self.scores.cpu()
        deviations = scores - scores.mean()
        spread = deviations.square().mean().sqrt()
        standardised = deviations / spread if spread > 0 else deviations
        bounds = (standardised / self.temperature).softmax(0).cumsum(0)
        start = torch.rand((), dtype=torch.float64, generator=self.generator)
        chosen = torch.searchsorted(bounds, (torch.arange(count) + start) / count).clamp(max=count - 1)
        noise = torch.randn(count, num_tasks, dtype=torch.float64, generator=self.generator)
        moved = self.particles.cpu()[chosen] * torch.exp(self.spread * noise)
        self.particles.copy_(num_tasks * moved / moved.sum(1, keepdim=True))
