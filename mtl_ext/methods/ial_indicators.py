"""What the auxiliary tasks' weights in the encoder stage of `IAL` can go by."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_ext.losses import Losses
from mtl_ext.methods.auto_lambda import AutoLambda
from mtl_ext.methods.auxiliary import primary_cosines, primary_norm
from mtl_ext.methods.base import check_choice, check_range, task_values
from mtl_ext.methods.dwa import DWA
from mtl_ext.methods.gradnorm import training_rates


class Indicator(nn.Module):
    """How much each auxiliary task counts in the encoder stage. State is in buffers.

    Attributes:
        compares: whether inner products of different tasks' gradients are looked at.
        final: whether the weights are those of the gradients as they are, the primary tasks' included: neither is the
            primary weight set to 1, nor are norms matched.
        bilevel: whether `update_weights` wants other data before every step.
    """

    compares: ClassVar[bool] = False
    final: ClassVar[bool] = False
    bilevel: ClassVar[bool] = False

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """The weights of one step.

        Args:
            gram: [K, K] float64, of the tasks' gradients.
            losses: [K] float64, detached.
            sigma: [K] float64, the tasks' uncertainties before the step.
            primary: [K] float64, 1 for a primary task and 0 for others.

        Returns:
            [K] float64; what stands for the primary tasks is not used, unless `final`.
        """
        raise NotImplementedError

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """See `Method.update_weights`."""

    def end_epoch(self) -> None:
        """See `Method.end_epoch`."""


class Uncertainty(Indicator):
    """``f(sigma_k) = min(1, g(1 - sigma_k))`` (Eq. 9): less uncertain tasks count more.

    Args:
        g: ``"relu"``: 0 from sigma = 1 on; ``"softplus"`` or ``"exp"``: never 0 (and exp is 1 up to sigma = 1).
    """

    MAPS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "relu": torch.relu,
        "softplus": functional.softplus,
        "exp": torch.exp,
    }

    def __init__(self, *, g: str = "relu") -> None:
        super().__init__()
        check_choice("g", g, tuple(self.MAPS))
        self.g = g

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """Each task's f(sigma)."""
        return self.MAPS[self.g](1 - sigma).clamp(max=1.0)


class Fixed(Indicator):
    """Numbers that stay.

    Args:
        num_tasks: K.
        weights: K numbers, at least 0.
    """

    weights: Tensor

    def __init__(self, num_tasks: int, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weights", task_values("indicator", weights, num_tasks, low=0.0))

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """The numbers."""
        return self.weights


class TrainingSpeed(Indicator):
    """``1 - r_k / sum_j r_j`` with the rates r of `DWA`: tasks whose loss falls faster count more.

    Until two epochs are over all rates count as 1. How a rate becomes a weight in [0, 1] is our choice.

    Args:
        num_tasks: K.
        window: steps per mean of the losses; 0 for epochs.
    """

    def __init__(self, num_tasks: int, *, window: int = 0) -> None:
        super().__init__()
        self.dwa = DWA(num_tasks, window=window)

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """One minus each task's share of the rates."""
        rates = self.dwa.rates(losses)
        total = rates.sum()
        shares = torch.where(total.isfinite() & (total > 0), rates / total, 1 / len(rates))
        return (1 - shares).clamp(0.0, 1.0)

    def end_epoch(self) -> None:
        """Takes the epoch's mean losses."""
        self.dwa.end_epoch()


class GradientNorm(Indicator):
    """`GradNorm`'s target, ``mean_j |g_j| r_k^alpha``, over the primary norm: what the task's norm is expected to be.

    At most 1, our choice; with norms matched, the task's gradient is then as long as its target.

    Args:
        num_tasks: K.
        alpha: see `GradNorm`.
    """

    first: Tensor

    def __init__(self, num_tasks: int, *, alpha: float = 1.5) -> None:
        super().__init__()
        check_range("alpha", alpha, 0.0)
        self.alpha = alpha
        self.register_buffer("first", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """The targets, relative to the primary norm."""
        rates = training_rates(self.first, losses)
        target = gram.diagonal().sqrt().mean() * rates**self.alpha
        norm = primary_norm(gram, primary)
        return torch.where(norm > 0, target / norm, 0.0).clamp(0.0, 1.0)


class Cosine(Indicator):
    """``max(0, cos(g_primary, g_k))``, as in the weighted form of `GCS`."""

    compares = True

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """The cosines that are above 0."""
        return primary_cosines(gram, primary).clamp(min=0.0)


class LookAhead(Indicator):
    """The weights of `AutoLambda`, for its form with impartial decoders (Table IX): of the encoder alone.

    The virtual step takes these weights for the decoders too.

    Args:
        num_tasks: K.
        primary: the primary tasks.
        nonfinite: see `Method`.
        initial: this and the others: see `AutoLambda`.
    """

    final = True
    bilevel = True

    def __init__(
        self,
        num_tasks: int,
        primary: Sequence[str | int],
        nonfinite: str,
        *,
        initial: float | Sequence[float] = 0.1,
        lr: float = 1e-4,
        mode: str = "jvp",
        virtual_step: str = "own",
        nonnegative: bool = False,
    ) -> None:
        super().__init__()
        self.method = AutoLambda(
            num_tasks,
            primary=primary,
            initial=initial,
            lr=lr,
            mode=mode,
            virtual_step=virtual_step,
            nonnegative=nonnegative,
            nonfinite=nonfinite,
        )

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """The weights so far."""
        return self.method.weights

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Moves the weights, see `AutoLambda.update_weights`."""
        self.method.update_weights(train_losses, meta_losses, model, optimizer)


class Custom(Indicator):
    """Any function of what `Indicator.forward` gets. Whether it compares gradients is not known: it counts as if."""

    compares = True

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, gram: Tensor, losses: Tensor, sigma: Tensor, primary: Tensor) -> Tensor:
        """What the function gives."""
        weights = self.function(gram, losses, sigma, primary)
        if weights.shape != losses.shape:
            raise ValueError(
                f"indicator gave weights of shape {list(weights.shape)}, expected one per task: {list(losses.shape)}"
            )
        return weights.double()


INDICATORS: dict[str, type[Indicator]] = {
    "uncertainty": Uncertainty,
    "training_speed": TrainingSpeed,
    "gradient_norm": GradientNorm,
    "cosine": Cosine,
    "auto_lambda": LookAhead,
}


def build_indicator(
    indicator: str | float | Sequence[float] | Callable[..., Tensor],
    options: Mapping[str, Any],
    provided: Mapping[str, Any],
) -> Indicator:
    """The indicator that the arguments of `IAL` describe.

    Args:
        indicator: a key of INDICATORS, numbers, or a function.
        options: of a key's class.
        provided: what the class gets if it asks for it by name.

    Raises:
        ValueError: there is no such indicator or option, or an option cannot be used.
    """
    if isinstance(indicator, str):
        check_choice("indicator", indicator, tuple(INDICATORS))
        maker = INDICATORS[indicator]
        asked = inspect.signature(maker).parameters
        known = [name for name in asked if name not in provided]
        for name in options:
            if name not in known:
                has = ", ".join(known) or "none"
                raise ValueError(f"indicator_options holds {name!r}: indicator {indicator!r} has {has}")
        return maker(**{name: value for name, value in provided.items() if name in asked}, **options)
    if options:
        raise ValueError(f"indicator_options is {dict(options)!r}, but only an indicator given by its name has options")
    if callable(indicator):
        return Custom(indicator)
    num_tasks = provided["num_tasks"]
    if isinstance(indicator, (int, float)):
        return Fixed(num_tasks, [indicator] * num_tasks)
    if not isinstance(indicator, (list, tuple)):
        raise ValueError(f"indicator is {indicator!r}, expected a name, a number, a list of K, or a function")
    return Fixed(num_tasks, indicator)
