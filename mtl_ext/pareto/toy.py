"""Two losses of two parameters with a known Pareto front, the test problem of CAGrad and Nash-MTL."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Of Nash-MTL's published experiment.
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
# The first parameter where each loss is least.
CENTRES = (7.0, -7.0)
# Both losses stay above it, before scaling.
LOWER_BOUND = -20.0
# Under the logarithm, which would be -inf in the middle of a valley.
SMALLEST = 5e-6


@dataclass(frozen=True)
class Front:
    """Points along the Pareto front.

    Attributes:
        parameters: [P, 2] float64, from the first loss's minimum to the second's.
        losses: [P, 2] float64.
        slopes: [2] float64, the largest norm of each loss's gradient on the front.
    """

    parameters: Tensor
    losses: Tensor
    slopes: Tensor


class Toy:
    """The two losses of Liu et al. 2021 (CAGrad, appendix) with the scale of Navon et al. 2022 (Nash-MTL, appendix B).

    With parameters (x, y), a = 7 and s = 1 in the first loss, a = -7 and s = -1 in the second:

    ``L = tanh(y / 2)^+ valley + tanh(-y / 2)^+ bowl``,
    ``valley = log(max(|(a + x) / 2 - s tanh y|, 5e-6)) + 6``, ``bowl = ((x - a)^2 + (y + 8)^2 / 10) / 10 - 20``.

    Above y = 0 each loss has a narrow valley with walls of unbounded slope, in which a descent can be held up; below
    are two bowls, side by side. The first loss is multiplied by `scale`.

    Args:
        scale: of the first loss, above 0: 0.1 in Nash-MTL's experiment, 1 in CAGrad's.
    """

    def __init__(self, scale: float = 0.1) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}, expected a finite number above 0")
        self.scales = torch.tensor([scale, 1.0], dtype=torch.float64)
        self.lower_bounds = LOWER_BOUND * self.scales
        self._centres = torch.tensor(CENTRES, dtype=torch.float64)

    def losses(self, parameters: Tensor) -> Tensor:
        """Both losses [..., 2] at parameters [..., 2], float64."""
        x, y = parameters[..., :1], parameters[..., 1:]
        side = (y / 2).tanh()
        distance = (self._centres + x) / 2 - self._centres.sign() * y.tanh()
        valley = distance.abs().clamp_min(SMALLEST).log() + 6
        bowl = ((x - self._centres).square() + (y + 8).square() / 10) / 10 + LOWER_BOUND
        return self.scales * (side.clamp_min(0) * valley + (-side).clamp_min(0) * bowl)

    def gradients(self, parameters: Tensor) -> Tensor:
        """The gradient of each loss, [P, 2 losses, 2 parameters], at parameters [P, 2]."""
        with torch.enable_grad():
            points = parameters.detach().requires_grad_()
            losses = self.losses(points)
            rows = [torch.autograd.grad(losses[:, k].sum(), points, retain_graph=True)[0] for k in range(2)]
        return torch.stack(rows, 1)

    def front(self, points: int = 2801) -> Front:
        """The Pareto front, by the minima of all weighted sums of the losses; exact to float64 at each point.

        Below y = 0, ``w L1 + (1 - w) L2`` (before scaling, which leaves the front's parameters where they are) is least
        at ``x = 7 (2 w - 1)``, where the bowls' weighted mean is ``v + (y + 8)^2 / 100``, ``v = 19.6 w (1 - w) - 20``;
        y is the root of the derivative, found by bisection. The losses along this curve make a convex front, so there
        is no other point below. Above y = 0 both losses are at least -6.21, and on the curve both can be less.

        Args:
            points: how many, at least 2.
        """
        weight = torch.linspace(1.0, 0.0, points, dtype=torch.float64)
        depth = 19.6 * weight * (1 - weight) + LOWER_BOUND
        low, high = torch.full_like(weight, -9.0), torch.full_like(weight, -8.0)
        for _ in range(60):
            y = (low + high) / 2
            side = (-y / 2).tanh()
            rises = side * (y + 8) / 50 > (1 - side.square()) / 2 * (depth + (y + 8).square() / 100)
            low, high = torch.where(rises, low, y), torch.where(rises, y, high)
        parameters = torch.stack([CENTRES[0] * (2 * weight - 1), (low + high) / 2], 1)
        slopes = self.gradients(parameters).norm(dim=-1).amax(0)
        return Front(parameters, self.losses(parameters), slopes)
