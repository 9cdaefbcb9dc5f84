"""Methods that combine the tasks' gradients. `GramMethod` is the data flow of the whole package in a few lines."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtl_ext.distributed import refuse_data_parallel
from mtl_ext.gradients import FeatureGradients, Features, ParameterGradients, TaskGradients
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import Method, StepOptions, check_range


class GradMethod(Method):
    """A method that combines per-task gradients, element by element or with a state of their size.

    Args:
        reduction: see `Method`; it multiplies the combined gradient and the weights.
        weight_heads: multiply each head's gradient by its task's weight, ``reduction`` included, instead of training
            heads on their own losses.
        nonfinite: see `Method`.

    Attributes:
        compares: whether gradients of different tasks meet, which features of different inputs do not allow.
        eps: machine epsilon of the last call's gradients, for decisions on the rank of their Gram matrix.
        feature_gradients: what collects the gradients at feature level, called as `FeatureGradients` is; a program that
            cuts the graph at its features puts its own there.
    """

    level = "gradient"
    compares: ClassVar[bool] = True

    def __init__(self, *, reduction: str | None = None, weight_heads: bool = False, nonfinite: str = "raise") -> None:
        super().__init__(reduction=reduction, nonfinite=nonfinite)
        self.weight_heads = weight_heads
        self.eps = torch.finfo(torch.float64).eps
        self._collected: TaskGradients | None = None
        self._knows_no_wrapper = False
        self.feature_gradients: Callable[..., FeatureGradients] = FeatureGradients

    def combination(self, gradients: TaskGradients, gram: Tensor, losses: Tensor) -> tuple[list[Tensor], Tensor]:
        """The combined gradient, as the formula gives it: before ``reduction``.

        Args:
            gradients: with ``tensors``, the K * P gradients, task-major, empty where absent; the first task's may be
                overwritten. Scaled where ``gradients.losses.scale`` is not None.
            gram: [K, K] float64, not scaled.
            losses: [K] float64, detached.

        Returns:
            P tensors, empty where no task has the parameter, and what stands for the weights, [K] float64.
        """
        raise NotImplementedError

    def gram_of(self, gradients: TaskGradients) -> Tensor:
        """The Gram matrix [K, K] that the method looks at; a method of groups also keeps theirs."""
        return gradients.gram()

    def head_weights(self, weights: Tensor) -> Tensor:
        """What the heads' gradients are multiplied by where ``weight_heads`` is on, [K] float64: the weights."""
        return weights

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        """Combines into ``.grad``; returns the weights. `usable`: scalar, 1, or 0 or NaN where nothing may be used."""
        combined, weights = self.combination(gradients, gram, losses)
        factor = self.reduction_factor(len(weights))
        gradients.write(combined, factor * usable.reshape(1))
        return torch.where(usable == 1, factor * weights, usable)

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        """Losses -> per-task gradients -> gram -> weights -> combined gradient -> ``.grad``."""
        task_losses = TaskLosses(losses, options.scaler)
        if self._skips(task_losses):
            return torch.zeros_like(task_losses.values)
        collect_heads = self.weight_heads or self.nonfinite == "skip"
        with self._task_gradients(task_losses, shared, features, options, collect_heads) as gradients:
            if self._collected is not None:
                gradients.add_earlier(self._collected)
                self._collected = None
            if not options.combine:
                self._collected = gradients
                return torch.zeros_like(task_losses.values)
            gram = self.gram = self.gram_of(gradients)
            self.eps = gradients.eps()
            usable = self._judge(gram, task_losses)
            weights = self._combine(gradients, gram, gradients.losses.values, usable)
            if gradients.heads is not None:
                equal = usable.expand(len(weights)).contiguous()
                gradients.heads.apply(self.head_weights(weights) if self.weight_heads else equal)
        return weights

    def _task_gradients(
        self,
        losses: TaskLosses,
        shared: Iterable[Tensor] | None,
        features: Features | None,
        options: StepOptions,
        collect_heads: bool,
    ) -> TaskGradients:
        name = type(self).__name__
        if shared is None and features is None:
            raise ValueError(f"{name}.backward needs shared=<shared parameters> or features=<what the heads read>")
        if shared is None and (not options.combine or self._collected is not None):
            raise ValueError("combine=False collects over micro-batches, whose features differ: pass shared=")
        if not self._knows_no_wrapper:
            refuse_data_parallel(name, losses.tensors[0])
            self._knows_no_wrapper = True
        how: dict[str, Any] = {
            "penalties": options.penalties,
            "collect_heads": collect_heads,
            "retain_graph": options.retain_graph,
            "allow_unused": options.allow_unused,
        }
        if shared is not None:
            return ParameterGradients(losses, shared, features, **how)
        assert features is not None
        gradients = self.feature_gradients(losses, features, **how)
        if self.compares and gradients.own_input:
            raise ValueError(
                f"{name} compares the tasks' gradients, but {losses.names[1]} reads features of its own input, other "
                f"entries than those of {losses.names[0]}: inner products between them are undefined. Pass "
                "shared=<shared parameters> instead of features=."
            )
        return gradients

    def _judge(self, gram: Tensor, losses: TaskLosses) -> Tensor:
        """1 where the gradients can be used; else 0, so that nothing is trained on, or NaN to propagate.

        Raises for what is not finite; on CUDA without waiting for it.
        """
        propagates = self.nonfinite == "propagate" or losses.scale is not None
        if not propagates and self.nonfinite == "raise":
            self._raise_nonfinite(gram.diagonal(), losses.names, "the gradient of {} has squared norm {}")
        return torch.where(gram.isfinite().all(), 1.0, torch.nan if propagates else 0.0).double()


class GramMethod(GradMethod):
    """A method whose task weights are a function of the Gram matrix of the per-task gradients."""

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The weights of the combined gradient, as the formula gives them: before ``reduction``.

        Args:
            gram: [K, K] float64.
            losses: [K] float64, detached.

        Returns:
            Tensor [K], float64.
        """
        raise NotImplementedError

    def applied_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """What the gradients are multiplied by, [K] float64: `task_weights` with ``reduction``."""
        return self.reduction_factor(len(gram)) * self.task_weights(gram, losses)

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        weights = torch.where(usable == 1, self.applied_weights(gram, losses), usable)
        gradients.combine(weights)
        return weights


def checked_preference(preference: Sequence[float] | None, *, open_low: bool = False) -> list[float] | None:
    """One number per task from an argument, each from 0 on, or above 0 with ``open_low``.

    Raises:
        ValueError: naming the number that is not.
    """
    for index, value in enumerate(preference or ()):
        check_range(f"preference[{index}]", value, 0.0, open_low=open_low)
    return None if preference is None else list(preference)


def preference_vector(preference: Sequence[float] | None, gram: Tensor, default: float) -> Tensor:
    """Preferences [K] beside a Gram matrix [K, K]; `default` for each task where there are none.

    Raises:
        ValueError: another number of preferences than of tasks.
    """
    num_tasks = len(gram)
    if preference is None:
        return gram.new_full((num_tasks,), default)
    if len(preference) != num_tasks:
        raise ValueError(f"losses has {num_tasks} tasks, expected len(preference) = {len(preference)}")
    return gram.new_tensor(preference)


def shortened(weights: Tensor, gram: Tensor, max_norm: float | None) -> Tensor:
    """Weights [K] whose combined gradient is at most `max_norm` long; None: as they are."""
    if max_norm is None:
        return weights
    norm = torch.dot(weights, gram @ weights).abs().sqrt()
    return weights * (max_norm / norm.clamp_min(max_norm))
