"""What a method is: an nn.Module whose `backward` takes the place of ``loss.backward()`` in a training loop."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch._functorch.config
from torch import Tensor, nn

from mtl_ext.gradients import Features
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.penalty import Penalty


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is NaN or infinite. The message names the task."""


@dataclass(frozen=True)
class StepOptions:
    """How a step is taken: the last arguments of `Method.backward`, which describes them."""

    penalties: Sequence[Any] = ()
    scaler: torch.amp.GradScaler | None = None
    combine: bool = True
    retain_graph: bool = False
    allow_unused: bool = False


class Method(nn.Module):
    """Base of all methods.

    A method with several backward passes turns torch's ``donated_buffer`` off for the process, without which compiled
    models fail in the second pass: build the method before a compiled model's first call.

    Args:
        reduction: whether the tasks' losses or gradients are added, ``"sum"``, or averaged, ``"mean"``, 1 / K of that:
            peers differ by this factor. Each method says what its formula gives, and has its authors' choice as
            default. None: what the formula gives.
        nonfinite: what happens when a loss or a task's gradient is NaN or infinite. ``"raise"``: NonFiniteError, before
            the shared parameters' ``.grad`` is touched (on CUDA, where looking would stall the device, weights of 0 and
            the error at the next call, or by `check`). ``"skip"``: the step adds nothing to any ``.grad`` and returns
            weights of 0 (a loss that is not finite is looked for before the backward pass, which waits for the device).
            ``"propagate"``: it goes into ``.grad``. With ``scaler=`` gradients always propagate, for the
            GradScaler to find.

    Attributes:
        formula_gives: the ``reduction`` that the formula as it is written stands for.
        level: ``"loss"`` (one backward pass) or ``"gradient"`` (one per task, to the shared parameters or to the
            features).
        batches: how many batches a step takes; with more than one, `backward` takes a sequence of so many losses, and
            of features.
        second_derivatives: whether a step differentiates the gradients once more.
        second_look: whether `look_again` wants the losses of the same batch after the optimizer's step.
        bilevel: whether `update_weights` wants a batch of other data before every step.
        shared_step: of a bilevel method, whether `update_weights` is called between `backward` and the optimizer's step
            instead, and goes by the gradient that is there.
        wants_performance: whether `update_performance` wants to know after every epoch how well the tasks do on
            validation data.
        gram: [K, K] float64, the Gram matrix of the last call; None before, and for methods that do not need it.
    """

    formula_gives: ClassVar[str] = "sum"
    level: ClassVar[str]
    batches: ClassVar[int] = 1
    second_derivatives: ClassVar[bool] = False
    second_look: ClassVar[bool] = False
    bilevel: ClassVar[bool] = False
    shared_step: bool = False
    wants_performance: ClassVar[bool] = False

    def __init__(self, *, reduction: str | None = None, nonfinite: str = "raise") -> None:
        super().__init__()
        self.reduction = self.formula_gives if reduction is None else reduction
        check_choice("reduction", self.reduction, ("sum", "mean"))
        check_choice("nonfinite", nonfinite, ("raise", "skip", "propagate"))
        self.nonfinite = nonfinite
        self.gram: Tensor | None = None
        self._pending: tuple[Tensor, torch.cuda.Event, list[str], str] | None = None
        if self.level == "gradient":
            # torch.compile gives a graph's buffers away in the first backward pass, and a second one then fails.
            torch._functorch.config.donated_buffer = False

    def backward(
        self,
        losses: Losses | Sequence[Losses],
        shared: Iterable[Tensor] | None = None,
        features: Features | Sequence[Features] | None = None,
        *,
        penalties: Sequence[Penalty] | Sequence[Sequence[Penalty]] = (),
        scaler: torch.amp.GradScaler | None = None,
        combine: bool = True,
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
            penalties: terms that join the tasks' gradients where the heads begin, see :mod:`mtl_ext.penalties`; of a
                method that takes several batches, a sequence for each.
            scaler: the GradScaler of mixed precision. Pass the losses unscaled: ``.grad`` gets the scaler's scale, as
                ``scaler.scale(loss).backward()`` gives it, and the weights are those of the unscaled gradients.
            combine: False only collects this micro-batch's per-task gradients (parameter level); the next call adds
                its own, and with ``combine=True`` weighs the sums, as one large batch would (divide the losses by the
                number of micro-batches). Otherwise every call combines its own batch and accumulates into ``.grad``.
                What is collected is not part of the ``state_dict``.
            retain_graph: keep the graph for another backward pass.
            allow_unused: accept a task that reaches none of ``shared`` or ``features``.

        Returns:
            The task weights, [K] float64, detached, on the losses' device; 0 from a call that only collects. Gradients
            have been accumulated into ``.grad``: the combination at the shared parameters, each head's own loss at its
            parameters (times the task's weight where the method has ``weight_heads``).

        Raises:
            ValueError: an argument cannot be used, naming it and the task.
            NonFiniteError: see ``nonfinite``.
            RuntimeError: the shared parameters belong to a DistributedDataParallel module and the method makes K
                backward passes.
        """
        return self._step(losses, shared, features, StepOptions(penalties, scaler, combine, retain_graph, allow_unused))

    def _step(self, losses: Any, shared: Iterable[Tensor] | None, features: Any, options: StepOptions) -> Tensor:
        """What `backward` does; losses and features are sequences where the method takes several `batches`."""
        raise NotImplementedError

    def look_again(self, losses: Losses) -> None:
        """Takes the losses of the step's batch, computed anew after the optimizer's step; see `second_look`.

        Args:
            losses: as in `backward`, in the same order; no graph is needed.
        """

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Looks one step ahead and changes the weights; to be called before the step's own forward pass, see `bilevel`.

        With `shared_step` it is called after the step's `backward`, and changes the weights of the next one.

        The model, its buffers, their ``.grad``, the optimizer and the random numbers that the forward pass will draw
        are left as they are.

        Args:
            train_losses: ``() -> losses``, as in `backward`, of the coming step's batch; calls `model`.
            meta_losses: ``() -> losses`` of a batch of other data; calls `model`.
            model: the network.
            optimizer: the optimizer that trains it.
        """

    def update_performance(self, values: Sequence[float] | Tensor) -> None:
        """Takes the tasks' performances after an epoch; see `wants_performance`.

        Args:
            values: one number per task, in the order of the losses, in (0, 1], 1 being perfect (accuracy, IoU, ...);
                from data that is neither trained nor tested on.
        """

    def end_epoch(self) -> None:
        """Tells the method that an epoch is over; some go by epochs."""

    @property
    def logged(self) -> dict[str, float]:
        """Numbers of the last step, by name, that are worth a log besides losses and weights; reading them waits."""
        return {}

    def check(self) -> None:
        """Waits for the verdict on the last call's gradients and raises it; only CUDA defers it.

        Raises:
            NonFiniteError: the last call met a non-finite gradient.
        """
        if self._pending is not None:
            pending, event, names, text = self._pending
            self._pending = None
            event.synchronize()
            raise_nonfinite(pending, names, text)

    def _raise_nonfinite(self, values: Tensor, names: list[str], text: str) -> None:
        """Raises for values [K] that are not finite; on CUDA at the next call, without waiting for them."""
        if values.is_cpu:
            raise_nonfinite(values, names, text)
        elif not (torch.compiler.is_compiling() or torch.cuda.is_current_stream_capturing()):
            pinned = torch.empty(len(names), dtype=values.dtype, pin_memory=True)
            pinned.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._pending = (pinned, event, names, text)

    def reduction_factor(self, num_tasks: int) -> float:
        """What the formula is to be multiplied by to give ``reduction``: 1, K or 1 / K."""
        if self.reduction == self.formula_gives:
            return 1.0
        return num_tasks if self.reduction == "sum" else 1 / num_tasks

    def _skips(self, losses: TaskLosses) -> bool:
        """Judges the losses before anything is done; True: leave the step out."""
        self.check()
        if self.nonfinite == "raise":
            self._raise_nonfinite(losses.values, losses.names, "{} is {}")
        return self.nonfinite == "skip" and not bool(losses.values.isfinite().all())


class RandomMethod(Method):
    """Randomness from a generator of the method's own, which is saved and restored with its state.

    Args:
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        options: of the other base class.
    """

    def __init__(self, *, generator: torch.Generator | None = None, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
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
            + ". Look for a log or a division of 0, or too large a learning rate; nonfinite='skip' leaves such steps "
            "out, nonfinite='propagate' lets them pass."
        )


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Checks an argument that takes one of a few values.

    Raises:
        ValueError: naming argument, value and choices.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, choices))}")


def check_range(
    name: str,
    value: float,
    low: float,
    high: float = float("inf"),
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Checks a number: from `low` (above it with ``open_low``) to `high` (below it with ``open_high``).

    Raises:
        ValueError: naming argument, value and range; NaN is outside every range.
    """
    inside = (value > low if open_low else value >= low) and (value < high if open_high else value <= high)
    if not inside:
        lower = f"above {low:g}" if open_low else f"at least {low:g}"
        upper = f" and {'below' if open_high else 'at most'} {high:g}" if high < float("inf") else ""
        raise ValueError(f"{name} is {value}, expected a number {lower}{upper}")


def chosen_tasks(name: str, wanted: str | int | Sequence[str | int], num_tasks: int) -> list[str | int]:
    """An argument that chooses tasks, as a list; that the names exist can only be seen when there are losses.

    Raises:
        ValueError: it chooses none, one twice, or an index outside 0 .. num_tasks - 1.
    """
    given = [wanted] if isinstance(wanted, (str, int)) else list(wanted)
    if not given:
        raise ValueError(f"{name} is [], expected at least one name or index")
    for task in given:
        if isinstance(task, int):
            check_range(name, task, 0, num_tasks - 1)
        if given.count(task) > 1:
            raise ValueError(f"{name} is {wanted!r}, expected each task once")
    return given


def task_indices(name: str, wanted: str | int | Sequence[str | int], keys: Sequence[str | int]) -> list[int]:
    """Positions of some of the tasks.

    Args:
        name: of the argument, for the message.
        wanted: a name or index, or several.
        keys: names or indices of the losses, in order.

    Raises:
        ValueError: one is no task, or comes twice.
    """
    given = [wanted] if isinstance(wanted, (str, int)) else list(wanted)
    chosen = [k for k, key in enumerate(keys) if key in given or k in given]
    if not given or len(chosen) != len(given):
        raise ValueError(f"{name} is {wanted!r}, expected names or indices of the losses {list(keys)}")
    return chosen


def check_num_tasks(found: int, num_tasks: int) -> None:
    """Checks the number of losses against the one that a method was built for.

    Raises:
        ValueError: they differ.
    """
    if found != num_tasks:
        raise ValueError(f"losses has {found} tasks, expected num_tasks = {num_tasks}")


def task_values(name: str, values: Sequence[float] | Tensor, num_tasks: int, low: float = -math.inf) -> Tensor:
    """One number per task from an argument, [K] float64.

    Raises:
        ValueError: another number of values, or one that is not finite or below `low`.
    """
    vector = torch.as_tensor(values, dtype=torch.float64).detach().clone()
    if vector.shape != (num_tasks,):
        raise ValueError(f"{name} has shape {list(vector.shape)}, expected [num_tasks] = [{num_tasks}]")
    for k, value in enumerate(vector.tolist()):
        if not (math.isfinite(value) and value >= low):
            raise ValueError(
                f"{name}[{k}] is {value}, expected a finite number" + f" of at least {low:g}" * (low > -math.inf)
            )
    return vector
