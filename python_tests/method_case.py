"""What a method's row is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mtl_ext import methods

# TorchJD's base example: two conflicting gradients.
JACOBIAN = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


@dataclass(frozen=True)
class MethodCase:
    """One method's row.

    Attributes:
        build: (num_tasks) -> the method, with defaults.
        value: the combined gradient on JACOBIAN with losses (1, 2), and where the number comes from.
        absolute: how far the combined gradient may be from the value, besides the relative 1e-4.
        scale_free: whether multiplying all gradients by a constant multiplies the combination by it.
        weighs: whether the combination is that of the gradients with the returned weights, from the first call on.
        degree: of the combination as a function of the gradients' scale.
        single_weight: the weight of an only task whose loss is 1, in the first call; None: depends on its gradient.
        order: why the order of the tasks matters; empty: it does not.
        untraced: why torch.compile cannot trace how the weights are found; empty: it can.
        bad_options: option -> (value, part of the message).
    """

    build: Callable[[int], methods.Method]
    value: Callable[[], np.ndarray]
    source: str
    absolute: float = 1e-12
    scale_free: bool = True
    weighs: bool = True
    degree: float = 1.0
    single_weight: float | None = 1.0
    order: str = ""
    untraced: str = ""
    bad_options: tuple[tuple[dict, str], ...] = ()
