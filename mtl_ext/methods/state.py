"""What methods remember from step to step: buffers that are saved, and that a value that is not finite never enters."""

import torch
from torch import Tensor, nn


def keep_finite(state: Tensor, new: Tensor) -> None:
    """Overwrites a state with a new value, unless that holds NaN or infinity."""
    state.copy_(torch.where(new.isfinite().all(), new, state))


class RunningMean(nn.Module):
    """The mean of what has been added since it was last taken, for example over an epoch.

    Args:
        size: number of values.
    """

    sum: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def add(self, values: Tensor) -> None:
        """Adds values [size]; those that are not all finite are left out."""
        finite = values.isfinite().all()
        self.sum.copy_(torch.where(finite, self.sum + values, self.sum))
        self.count.add_(finite)

    def take(self) -> Tensor:
        """The mean [size], NaN where nothing was added; what follows starts anew."""
        mean = self.sum / self.count
        self.sum.zero_()
        self.count.zero_()
        return mean


class Adam(nn.Module):
    """Adam (Kingma & Ba 2015) with L2 weight decay for a method's own vector, its moments being part of the state.

    The same steps as ``torch.optim.Adam``, whose state would not be saved with the method's.

    Args:
        size: number of values.
        lr: learning rate.
        weight_decay: added to the gradient, times the value.
    """

    BETAS = (0.9, 0.999)
    EPS = 1e-8

    mean: Tensor
    square: Tensor
    steps: Tensor

    def __init__(self, size: int, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        self.weight_decay = weight_decay
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    @torch.no_grad()
    def step(self, values: Tensor, grad: Tensor) -> None:
        """Changes values [size] in place; a gradient that is not finite changes nothing."""
        finite = grad.isfinite().all()
        first, second = self.BETAS
        grad = grad + self.weight_decay * values
        steps = self.steps + 1
        mean = first * self.mean + (1 - first) * grad
        square = second * self.square + (1 - second) * grad.square()
        scale = (square / (1 - second**steps)).sqrt() + self.EPS
        moved = values - self.lr * (mean / (1 - first**steps)) / scale
        for state, new in ((self.mean, mean), (self.square, square), (self.steps, steps), (values, moved)):
            state.copy_(torch.where(finite, new, state))
