"""What a method is: an nn.Module whose `backward` takes the place of ``loss.backward()`` in a training loop.

Read `GramMethod.backward`: it is the data flow of the whole package.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtl_ext import ops
from mtl_ext.gradients import FeatureGradients, Features, Losses, ParameterGradients, TaskGradients, TaskLosses


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite. The message names the task."""


class Method(nn.Module):
    """Base of all methods.

    Args:
        nonfinite: what happens when a loss or a task's gradient is NaN or infinite. ``"raise"``: NonFiniteError, before
            the shared parameters' ``.grad`` is touched (on CUDA, where looking would stall the device, weights of 0 and
            the error at the next call, or by `check`). ``"propagate"``: it goes into ``.grad``, for a GradScaler to
            find.

    Attributes:
        level: ``"loss"`` (one backward pass) or ``"gradient"`` (one per task, to the shared parameters or to the
        features).
        gram: [K, K] float64, the Gram matrix of the last call; None before, and for methods that do not need it.
    """

    level: ClassVar[str]

    def __init__(self, *, nonfinite: str = "raise") -> None:
        super().__init__()
        check_choice("nonfinite", nonfinite, ("raise", "propagate"))
        self.nonfinite = nonfinite
        self.gram: Tensor | None = None
        self._pending: tuple[Tensor, torch.cuda.Event, list[str]] | None = None

    def backward(
        self,
        losses: Losses,
        shared: Iterable[Tensor] | None = None,
        features: Features | None = None,
        *,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> Tensor:
        """Computes the gradients of one step; call it where ``sum(losses).backward()`` would stand.

        Args:
            losses: tensor [K], sequence of K scalars, or mapping from task name to scalar.
            shared: the shared parameters: per-task gradients are taken with respect to them (K trunk backward passes).
            features: the tensor or tensors that the heads read: per-task gradients are taken there, and their
                combination makes one trunk backward pass. With ``shared`` as well, gradients are with respect to the
                parameters, and the features only say where heads end. For own inputs, one per task.
            retain_graph: keep the graph for another backward pass.
            allow_unused: accept a task that reaches none of ``shared`` or ``features``.

        Returns:
            The task weights, [K] float64, detached, on the losses' device. Gradients have been accumulated into
            ``.grad``: the combination at the shared parameters, each head's own loss at its parameters.

        Raises:
            ValueError: an argument cannot be used, naming it and the task.
            NonFiniteError: see ``nonfinite``.
        """
        raise NotImplementedError

    def check(self) -> None:
        """Waits for the verdict on the last call's gradients and raises it; only CUDA defers it.

        Raises:
            NonFiniteError: the last call met a non-finite gradient.
        """
        if self._pending is not None:
            pending, event, names = self._pending
            self._pending = None
            event.synchronize()
            raise_nonfinite(pending, names, "the gradient of {} has squared norm {}")

    def _check_losses(self, losses: TaskLosses) -> None:
        self.check()
        if self.nonfinite == "raise" and losses.values.is_cpu:
            raise_nonfinite(losses.values, losses.names, "{} is {}")

    def _check_gram(self, gram: Tensor, names: list[str]) -> None:
        """Judges the squared norms; on CUDA without waiting for them."""
        if self.nonfinite != "raise" or torch.compiler.is_compiling():
            return
        if gram.is_cpu:
            raise_nonfinite(gram.diagonal(), names, "the gradient of {} has squared norm {}")
        elif not torch.cuda.is_current_stream_capturing():
            pinned = torch.empty(len(names), dtype=gram.dtype, pin_memory=True)
            pinned.copy_(gram.diagonal(), non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._pending = (pinned, event, names)

    def _usable(self, gram: Tensor, weights: Tensor) -> Tensor:
        """The weights where the Gram matrix is finite; else 0, so that nothing is trained on, or NaN to propagate."""
        return torch.where(gram.isfinite().all(), weights, torch.nan if self.nonfinite == "propagate" else 0.0)


class LossMethod(Method):
    """A method that weighs the losses: one backward pass of a scalar function of them."""

    level = "loss"

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The scalar that is minimised.

        Args:
            losses: [K] float64, to be differentiated by.
        """
        raise NotImplementedError

    def backward(
        self,
        losses: Losses,
        shared: Iterable[Tensor] | None = None,
        features: Features | None = None,
        *,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> Tensor:
        """One backward pass of all losses, each with its weight d combined_loss / d loss; see `Method.backward`.

        ``shared``, ``features`` and ``allow_unused`` are accepted and not needed: the weights act on heads and trunk
        alike.
        """
        task_losses = TaskLosses(losses)
        self._check_losses(task_losses)
        values = task_losses.values.requires_grad_()
        self.combined_loss(values).backward()  # type: ignore[no-untyped-call]  # also reaches the method's own parameters
        if values.grad is None:
            raise RuntimeError(f"{type(self).__name__}.combined_loss does not depend on the losses")
        weights = values.grad
        factors = [w.to(loss.dtype).reshape(loss.shape) for w, loss in zip(weights, task_losses.tensors, strict=True)]
        torch.autograd.backward(task_losses.tensors, factors, retain_graph=retain_graph)
        return weights


class GramMethod(Method):
    """A method whose task weights are a function of the Gram matrix of the per-task gradients."""

    level = "gradient"

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The weights of the combined gradient.

        Args:
            gram: [K, K] float64.
            losses: [K] float64, detached.

        Returns:
            Tensor [K], float64.
        """
        raise NotImplementedError

    def backward(
        self,
        losses: Losses,
        shared: Iterable[Tensor] | None = None,
        features: Features | None = None,
        *,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> Tensor:
        """Losses -> per-task gradients -> gram -> weights -> combined gradient -> ``.grad``; see `Method.backward`."""
        task_losses = TaskLosses(losses)
        self._check_losses(task_losses)
        options: dict[str, Any] = {"retain_graph": retain_graph, "allow_unused": allow_unused}
        with self._task_gradients(task_losses, shared, features, options) as gradients:
            gram = self.gram = ops.gram(gradients.tensors, len(task_losses))
            self._check_gram(gram, task_losses.names)
            weights = self._usable(gram, self.task_weights(gram, task_losses.values))
            gradients.combine(weights)
        return weights

    def _task_gradients(
        self,
        losses: TaskLosses,
        shared: Iterable[Tensor] | None,
        features: Features | None,
        options: dict[str, Any],
    ) -> TaskGradients:
        name = type(self).__name__
        if shared is not None:
            return ParameterGradients(losses, shared, features, **options)
        if features is None:
            raise ValueError(f"{name}.backward needs shared=<shared parameters> or features=<what the heads read>")
        gradients = FeatureGradients(losses, features, **options)
        if gradients.own_input:
            raise ValueError(
                f"{name} compares the tasks' gradients, but {losses.names[1]} reads features of its own input, other "
                f"entries than those of {losses.names[0]}: inner products between them are undefined. Pass "
                "shared=<shared parameters> instead of features=."
            )
        return gradients


class RandomMethod(Method):
    """Randomness from a generator of the method's own, which is saved and restored with its state.

    Args:
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.
    """

    def __init__(self, *, generator: torch.Generator | None = None, seed: int = 0, nonfinite: str = "raise") -> None:
        super().__init__(nonfinite=nonfinite)
        self.generator = torch.Generator().manual_seed(seed) if generator is None else generator

    def get_extra_state(self) -> Tensor:
        """The generator's state."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the generator."""
        self.generator.set_state(state)


def raise_nonfinite(values: Tensor, names: list[str], text: str) -> None:
    """Raises for the first value that is not finite.

    Args:
        values: [K], on the CPU.
        names: K names for the message.
        text: the message, with places for name and value.

    Raises:
        NonFiniteError: a value is NaN or infinite.
    """
    if not values.isfinite().all():
        k = int((~values.isfinite()).nonzero()[0])
        raise NonFiniteError(
            text.format(names[k], values[k].item())
            + ". Look for a log or a division of 0, or too large a learning rate; nonfinite='propagate' lets it pass."
        )


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Checks an argument that takes one of a few values.

    Raises:
        ValueError: naming argument, value and choices.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
