"""A method's way down from one start: the training loop, with two parameters for a network."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mtl_ext.pareto.toy import Toy
from mtl_ext.trainers import TrainConfig
from mtl_ext.trainers.build import build_method

# Steps times learning rate: the way that Adam can cover along each axis.
REACH = 60.0
# With fewer, Adam forgets so fast that a wall of a valley throws it far away.
FEWEST_STEPS = 200
EPOCHS = 20


@dataclass(frozen=True)
class Descent:
    """What a method did from one start.

    Attributes:
        path: [steps + 1, 2] float64, the parameters, those of the start first.
        weights: [steps, 2] float64, what the method returned in each step.
        grams: [steps, 2, 2] float64, the Gram matrices of the losses' gradients.
    """

    path: Tensor
    weights: Tensor
    grams: Tensor


def descend(
    toy: Toy,
    name: str,
    start: tuple[float, float],
    steps: int = 1000,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Descent:
    """Minimises both losses from one start by a method and Adam.

    The learning rate and the share of Adam's second moment that a step forgets are both 60 / n for n steps, so that n
    sets the resolution and not the way that can be covered. In the second half the learning rate falls to 0, since some
    methods' steps have a fixed length and would circle around their goal.

    The step size decides whether a descent leaves the valleys, where the losses are not smooth and no theory holds.
    With 1,000 steps all do; with 3,000, or with the 35,000 of 1e-3 in Nash-MTL's experiment, equal weighting and
    methods that follow the sum of the losses can stay in the second loss's valley from the start at (9, 9).

    The losses reach the method above their lower bounds, so that they are positive as a network's are: gradients do not
    notice, and methods that take logarithms or ratios of losses are defined.

    Args:
        toy: the losses.
        name: of a method.
        start: the first parameters.
        steps: how many, at least 200.
        options: of the method.
        seed: of a random method.

    Raises:
        ValueError: an unknown method or option, or too few steps.
    """
    if steps < FEWEST_STEPS:
        raise ValueError(f"steps is {steps}, expected at least {FEWEST_STEPS}")
    method = build_method(TrainConfig(method=name, method_options=dict(options or {}), seed=seed), num_tasks=2)
    parameters = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    pace = REACH / steps
    optimizer = torch.optim.Adam([parameters, *method.parameters()], lr=pace, betas=(0.9, 1 - pace))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / steps)))
    path, weights = [parameters.detach().clone()], []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        batches = [toy.losses(parameters) - toy.lower_bounds for _ in range(method.batches)]
        # One batch's losses, or a sequence of several batches'.
        losses = batches[0] if method.batches == 1 else batches
        weights.append(method.backward(losses, shared=[parameters]))
        optimizer.step()
        schedule.step()
        if method.second_look:
            with torch.no_grad():
                method.look_again(toy.losses(parameters) - toy.lower_bounds)
        if step % (steps // EPOCHS) == 0:
            method.end_epoch()
        path.append(parameters.detach().clone())
    points = torch.stack(path)
    gradients = toy.gradients(points[:-1])
    return Descent(points, torch.stack(weights), gradients @ gradients.mT)
