"""Learning rates over a run, as shares of the configured one: closed forms, so that a resumed run agrees."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from mtl_ext.methods.base import check_range
from mtl_ext.trainers.config import TrainConfig

Factor = Callable[[int], float]


def cosine(total_steps: int, *, floor: float = 0.0) -> Factor:
    """Half a cosine from 1 to `floor` in [0, 1], which is reached after the last step."""
    check_range("schedule_options.floor", floor, 0.0, 1.0)
    return lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * step / total_steps)) / 2


def poly(total_steps: int, *, power: float = 0.9) -> Factor:
    """``(1 - step / total)^power`` with a power above 0 (deeplab's schedule)."""
    check_range("schedule_options.power", power, 0.0, open_low=True)
    return lambda step: (1 - step / total_steps) ** power


def step(steps_per_epoch: int, *, every: int = 30, factor: float = 0.5) -> Factor:
    """Times `factor` in (0, 1] after every so many epochs."""
    check_range("schedule_options.every", every, 1)
    check_range("schedule_options.factor", factor, 0.0, 1.0, open_low=True)
    return lambda step: float(factor ** (step // (every * steps_per_epoch)))


def constant() -> Factor:
    """1 all the time."""
    return lambda step: 1.0


SCHEDULES: dict[str, Callable[..., Factor]] = {"cosine": cosine, "poly": poly, "step": step, "constant": constant}


def make_schedule(config: TrainConfig, steps_per_epoch: int) -> Factor:
    """The configured schedule: step (0 is the first) -> share of the learning rate.

    During the warm-up the share is multiplied by ``(step + 1) / warmup_steps``.

    Raises:
        ValueError: an option that the schedule does not take, or with a value that it cannot have.
    """
    maker = SCHEDULES[config.schedule]
    parameters = inspect.signature(maker).parameters.values()
    options = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name in config.schedule_options:
        if name not in options:
            known = ", ".join(options) or "none"
            raise ValueError(f"schedule {config.schedule!r} has no option {name!r}; it has {known}")
    total_steps = config.epochs * steps_per_epoch
    provided: dict[str, Any] = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    asked = {parameter.name: provided[parameter.name] for parameter in parameters if parameter.name in provided}
    factor = maker(**asked, **config.schedule_options)
    warmup = config.warmup_steps
    return lambda step: factor(step) * min(1.0, (step + 1) / warmup) if warmup else factor(step)
