"""Smooth Tchebycheff scalarisation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext.methods.base import check_choice, check_range, task_values
from mtl_ext.methods.loss_method import LossMethod, log_of
from mtl_ext.methods.state import RunningMean


class STCH(LossMethod):
    """Smooth Tchebycheff scalarisation (Lin et al. 2024): a smooth maximum, ``mu log sum_k exp(y_k / mu)``.

    Official form (of the authors' multi-task code): ``y_k = log(L_k / nadir_k)``, the nadir being the mean losses of
    the last of the warm-up epochs, in which ``mean_k log L_k`` is minimised; call ``end_epoch()`` after each epoch, or
    it never ends. A loss of 0 has ``y_k = 0`` and no gradient. Linear form: ``y_k = preference_k (L_k - reference_k)``,
    without a warm-up; not invariant to the scale of the losses.

    Peers differ: LibMTL counts ``STCH_warmup_epoch = 4`` from 0 and inclusively, which are the five epochs of the
    default here; TorchJD has the linear form alone, with ``reduction="mean"``.

    Args:
        num_tasks: K.
        mu: smoothing; the smaller, the closer to the maximum.
        form: ``"official"`` or ``"linear"``.
        warmup_epochs: of the official form, at least 1.
        preference: of the linear form, K numbers, at least 0; 1 / K by default.
        reference: of the linear form, K numbers, the ideal losses; 0 by default.
        reduction: ``"sum"``: times K, as in the authors' code and LibMTL; or ``"mean"``: as above.
        nonfinite: see `Method`.

    Attributes:
        nadir: [K] float64, NaN during the warm-up.
    """

    formula_gives = "mean"
    preference: Tensor
    reference: Tensor
    nadir: Tensor
    epochs: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        mu: float = 1.0,
        form: str = "official",
        warmup_epochs: int = 5,
        preference: Sequence[float] | Tensor | None = None,
        reference: Sequence[float] | Tensor | None = None,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("mu", mu, 0.0, open_low=True)
        check_choice("form", form, ("official", "linear"))
        check_range("warmup_epochs", warmup_epochs, 1)
        if form == "official" and not (preference is None and reference is None):
            raise ValueError("preference and reference belong to form='linear', the form is 'official'")
        self.mu = mu
        self.form = form
        self.warmup_epochs = warmup_epochs
        preference = [1 / num_tasks] * num_tasks if preference is None else preference
        reference = [0.0] * num_tasks if reference is None else reference
        self.register_buffer("preference", task_values("preference", preference, num_tasks, low=0.0))
        self.register_buffer("reference", task_values("reference", reference, num_tasks))
        self.register_buffer("nadir", torch.full((num_tasks,), torch.nan, dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.epoch = RunningMean(num_tasks)

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The smooth maximum, or the mean of the logarithms."""
        if self.form == "linear":
            return self._smooth_maximum(self.preference * (losses - self.reference))
        self.epoch.add(losses.detach())
        logs = log_of(losses)
        warm = self.nadir.isfinite().all()
        nadir = torch.where(warm & (self.nadir > 0) & (losses > 0), self.nadir, 1.0)
        return torch.where(warm, self._smooth_maximum(logs - nadir.log()), logs.mean())

    def _smooth_maximum(self, values: Tensor) -> Tensor:
        return self.mu * (values / self.mu).logsumexp(0)

    def end_epoch(self) -> None:
        """Counts the epoch; its mean losses are the nadir if it was the last of the warm-up."""
        mean = self.epoch.take()
        self.epochs.add_(1)
        last = (self.epochs >= self.warmup_epochs) & ~self.nadir.isfinite().all() & mean.isfinite().all()
        self.nadir.copy_(torch.where(last, mean, self.nadir))
