"""One row per method: how to build it and what it must give. Adding a method adds one row to CASES."""

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
        scale_free: whether multiplying all gradients by a constant multiplies the combination by it.
        bad_options: option -> (value, part of the message).
    """

    build: Callable[[int], methods.Method]
    value: Callable[[], np.ndarray]
    source: str
    scale_free: bool = True
    bad_options: tuple[tuple[dict, str], ...] = ()


def rlw_value():
    noise = torch.randn(2, generator=torch.Generator().manual_seed(0)).double().numpy()
    return np.exp(noise) / np.exp(noise).sum() @ JACOBIAN.numpy()


def min_norm_of_two():
    a, b = JACOBIAN.numpy()
    weight = np.clip(b @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return weight * a + (1 - weight) * b


CASES = {
    "EW": MethodCase(lambda k: methods.EW(), lambda: np.array([2.0, 2.0, 2.0]), "sum of the rows"),
    "RLW": MethodCase(lambda k: methods.RLW(), rlw_value, "softmax of the first normal draw of seed 0, in numpy"),
    "UW": MethodCase(
        lambda k: methods.UW(k),
        lambda: np.array([1.0, 1.0, 1.0]),
        "half the sum: all log variances are 0",
        bad_options=(
            ({"num_tasks": 0}, "num_tasks is 0"),
            ({"num_tasks": 2, "form": 3}, "form is 3, expected one of 1, 2"),
        ),
    ),
    "PCGrad": MethodCase(
        lambda k: methods.PCGrad(),
        lambda: np.array([0.5848, 3.8012, 3.8012]),
        "the value row published with TorchJD",
        bad_options=(({"reduction": "max"}, "reduction is 'max'"), ({"nonfinite": "hope"}, "nonfinite is 'hope'")),
    ),
    "MGDA": MethodCase(
        lambda k: methods.MGDA(),
        min_norm_of_two,
        "closed form for two tasks (Sener & Koltun 2018, Algorithm 1)",
        bad_options=(({"normalization": "l1"}, "normalization is 'l1'"),),
    ),
}
