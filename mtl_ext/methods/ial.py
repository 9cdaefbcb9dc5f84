"""IAL: decoders that are trained impartially, and an encoder that is trained for the primary task."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext.gradients import TaskGradients
from mtl_ext.losses import Losses
from mtl_ext.methods.auxiliary import AuxiliaryMethod, primary_norm
from mtl_ext.methods.base import check_range
from mtl_ext.methods.grad_method import GramMethod
from mtl_ext.methods.ial_indicators import Uncertainty, build_indicator
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import RunningMean
from mtl_ext.methods.uw import UW


class IAL(AuxiliaryMethod):
    """Impartial auxiliary learning (Li et al. 2024): uncertainties weigh the decoders, and tell what helps the encoder.

    Decoder stage: ``sum_t L_t / (2 sigma_t^2) + log sigma_t`` over all tasks (the paper's Eq. 3) trains the heads and
    the uncertainties sigma. Encoder stage, on the gradients at the features (Eq. 7 to 9): ``g_primary + sum_aux
    f(sigma_t) (|g_primary| / |g_t|) g_t``, ``f(x) = min(1, relu(1 - x))``, with sigma from before the step and one norm
    over all features. A task with a gradient of 0 is absent. Both stages take one forward pass, one backward pass of
    each head and one of the trunk; ``shared=`` does the same with the parameters' gradients. Tasks may have inputs of
    their own, since only norms are compared (not so for ``"cosine"`` and functions).

    The log variances are parameters: give ``method.parameters()`` to the optimizer, in a group without weight decay.
    sigma starts at 0.9, so that auxiliary weights start at 0.1. From sigma = 1 on, where the loss stays at 1 or above,
    the weight is 0: `end_epoch` warns of auxiliary tasks that were left out for a whole epoch.

    The paper's ablations: ``indicator=0.1`` (and other numbers, for a grid), ``"training_speed"``, ``"gradient_norm"``,
    ``"cosine"``; ``match_norms=False``; ``method=`` `EW`, `FixedWeights`, `GradNorm` (at the level of the gradients at
    hand), `DWA`, `RLW`; ``indicator="auto_lambda"`` for Auto-lambda with impartial decoders, which looks ahead (see
    `Method.update_weights`); a broken auxiliary head is one that is frozen.

    Args:
        num_tasks: K.
        primary: name or index of the primary task, or several.
        indicator: what auxiliary weights in the encoder go by: ``"uncertainty"``, ``"training_speed"``,
            ``"gradient_norm"``, ``"cosine"`` or ``"auto_lambda"`` (see :mod:`mtl_ext.methods.ial_indicators`); a number
            or K numbers; or a function ``(gram, losses, sigma, primary) -> weights [K]``, see `Indicator.forward`.
        indicator_options: of an indicator given by its name, such as ``{"g": "softplus"}`` for ``"uncertainty"``.
        match_norms: bring auxiliary gradients to the norm of the primary one. Not with ``"auto_lambda"``, whose weights
            are those of the gradients as they are, the primary tasks' included.
        method: weighs the decoders in place of the uncertainties: one that weighs losses (its hooks are passed on), or
            whose weights depend on the Gram matrix. A `UW` takes the place of the method's own, sigma included; with
            any other, sigma is trained beside it.
        initial_sigma: where the uncertainties of its own start, above 0.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K. It is about the encoder: for the decoders that of
            ``method`` counts.
        weight_heads: weigh the decoders, as above, or train each on its own loss.
        nonfinite: see `Method`; the inner method's own setting has no effect.

    Attributes:
        uncertainty: the `UW` whose log variances give sigma.
        weights: [K] float64, the encoder's weights in the last step; None before.
        decoder_weights: [K] float64, the decoders'.
        sigma: [K] float64, the uncertainties that the last step used.
        norms: [K] float64, of the tasks' gradients in the last step.
        zero_share: [K] float64, share of the last epoch's steps in which the encoder's weight was 0; NaN before.
    """

    compares = False
    zero_share: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | Sequence[str | int] = 0,
        indicator: str | float | Sequence[float] | Callable[..., Tensor] = "uncertainty",
        indicator_options: Mapping[str, Any] | None = None,
        match_norms: bool = True,
        method: LossMethod | GramMethod | None = None,
        initial_sigma: float = 0.9,
        reduction: str = "sum",
        weight_heads: bool = True,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            num_tasks, primary=primary, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )
        check_range("initial_sigma", initial_sigma, 0.0, open_low=True)
        if not (method is None or isinstance(method, (LossMethod, GramMethod))):
            raise ValueError(f"method is {method!r}, expected one that weighs losses, or a GramMethod")
        wanted = getattr(method, "num_tasks", None)
        if wanted not in (None, num_tasks):
            raise ValueError(f"method is for {wanted} tasks, expected num_tasks = {num_tasks}")
        provided = {"num_tasks": num_tasks, "primary": self.primary, "nonfinite": nonfinite}
        self.indicator = build_indicator(indicator, indicator_options or {}, provided)
        self.match_norms = match_norms
        self.uncertainty = method if isinstance(method, UW) else UW(num_tasks)
        if self.uncertainty is not method:
            nn.init.constant_(self.uncertainty.log_variances, 2 * math.log(initial_sigma))
        self.method = None if isinstance(method, UW) else method
        compares = isinstance(method, GramMethod) and method.compares
        self.compares = self.indicator.compares or compares  # type: ignore[misc]  # of the instance
        self.bilevel = self.indicator.bilevel or self.decoder_method.bilevel  # type: ignore[misc]
        self.second_look = self.decoder_method.second_look  # type: ignore[misc]
        self.wants_performance = self.decoder_method.wants_performance  # type: ignore[misc]
        self.weights: Tensor | None = None
        self.decoder_weights: Tensor | None = None
        self.sigma: Tensor | None = None
        self.norms: Tensor | None = None
        self.epoch_losses = RunningMean(num_tasks)
        self.epoch_zeros = RunningMean(num_tasks)
        self.register_buffer("zero_share", torch.full((num_tasks,), torch.nan, dtype=torch.float64))

    @property
    def decoder_method(self) -> LossMethod | GramMethod:
        """What weighs the decoders."""
        return self.uncertainty if self.method is None else self.method

    @property
    def logged(self) -> dict[str, float]:
        """Of the last step, for each task: ``sigma/TASK``, ``norm/TASK`` and ``decoder_weight/TASK``.

        And ``zero_share/TASK``, the share of the epoch's steps so far in which the encoder's weight was 0.
        """
        if self.sigma is None or self.norms is None or self.decoder_weights is None:
            return {}
        columns = {
            "sigma": self.sigma,
            "norm": self.norms,
            "decoder_weight": self.decoder_weights,
            "zero_share": self.epoch_zeros.sum / self.epoch_zeros.count.clamp(min=1.0),
        }
        rows = {name: values.tolist() for name, values in columns.items()}
        return {f"{name}/{key}": row[k] for name, row in rows.items() for k, key in enumerate(self.keys)}

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The encoder's weights."""
        primary = self.primary_tasks(gram)
        weights: Tensor = self.indicator(gram, losses, self._sigma(), primary)
        norms = gram.diagonal().sqrt()
        if self.indicator.final:
            return torch.where(norms > 0, weights, 0.0)
        factors = primary_norm(gram, primary) / norms if self.match_norms else 1.0
        return torch.where(primary == 1, 1.0, torch.where(norms > 0, factors * weights, 0.0))

    def head_weights(self, weights: Tensor) -> Tensor:
        """The last step's decoder weights."""
        assert self.decoder_weights is not None
        return self.decoder_weights

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        weights = super()._combine(gradients, gram, losses, usable)
        scale = gradients.losses.scale
        scale = torch.ones_like(usable) if scale is None else scale.double()
        decoders = self._decoder_stage(gram, losses, scale, usable)
        self.decoder_weights = torch.where(usable == 1, decoders, usable)
        self.weights, self.sigma, self.norms = weights, self._sigma(), gram.diagonal().sqrt()
        self.epoch_losses.add(losses)
        self.epoch_zeros.add(torch.where(usable == 1, (weights == 0).double(), torch.nan))
        return weights

    def _sigma(self) -> Tensor:
        """The uncertainties as they are now, [K] float64."""
        return (self.uncertainty.log_variances.detach().double() / 2).exp()

    def _decoder_stage(self, gram: Tensor, losses: Tensor, scale: Tensor, usable: Tensor) -> Tensor:
        """The decoders' weights [K]; trains the uncertainties, and what else weighs the decoders."""
        weights = _derivative(self.uncertainty, losses, scale, usable)
        if isinstance(self.method, GramMethod):
            self.method.eps = self.eps
            return self.method.applied_weights(gram, losses)
        return weights if self.method is None else _derivative(self.method, losses, scale, usable)

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Passes it on to what looks ahead."""
        self.indicator.update_weights(train_losses, meta_losses, model, optimizer)
        self.decoder_method.update_weights(train_losses, meta_losses, model, optimizer)

    def look_again(self, losses: Losses) -> None:
        """Passes it on."""
        self.decoder_method.look_again(losses)

    def update_performance(self, values: Sequence[float] | Tensor) -> None:
        """Passes it on."""
        self.decoder_method.update_performance(values)

    def end_epoch(self) -> None:
        """Passes it on, and warns of auxiliary tasks that the encoder has not been trained on for the whole epoch."""
        self.indicator.end_epoch()
        self.decoder_method.end_epoch()
        self.zero_share.copy_(self.epoch_zeros.take())
        means = self.epoch_losses.take()
        absent = (self.zero_share == 1).tolist()
        if not any(absent):
            return
        described = ", ".join(
            f"{key!r} (mean loss {loss:.4g}, sigma {sigma:.4g})"
            for key, loss, sigma, zero in zip(self.keys, means.tolist(), self._sigma().tolist(), absent, strict=True)
            if zero
        )
        advice = ". Where sigma is 1 or above, scale the loss down, or set indicator_options={'g': 'softplus'}"
        warnings.warn(
            f"the encoder's weight was 0 in every step of the epoch for {described}"
            + (advice if isinstance(self.indicator, Uncertainty) else ""),
            stacklevel=2,
        )


def _derivative(method: LossMethod, losses: Tensor, scale: Tensor, usable: Tensor) -> Tensor:
    """What each loss weighs in what a method minimises, [K]; its parameters get their gradient, times `scale`.

    Args:
        method: the method.
        losses: [K] float64, detached.
        scale: scalar.
        usable: scalar, 1, or 0 or NaN that the parameters get in place of their gradient.
    """
    values = losses.detach().clone().requires_grad_()
    combined = method.combined_loss(values) * method.reduction_factor(len(values))
    params = [param for param in method.parameters() if param.requires_grad]
    weights, *slopes = torch.autograd.grad(combined, [values, *params], allow_unused=True)
    for param, slope in zip(params, slopes, strict=True):
        if slope is not None:
            slope = torch.where((usable == 1) & slope.isfinite().all(), scale * slope, 0.0 * usable).to(param.dtype)
            param.grad = slope if param.grad is None else param.grad + slope
    return weights
