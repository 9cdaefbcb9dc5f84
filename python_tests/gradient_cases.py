"""The rows of methods that combine gradients element by element, with state of their size, or of several batches."""

import numpy as np
import torch
from method_case import JACOBIAN, MethodCase

from mtl_ext import methods
from mtl_ext.ops.philox import philox_uniform


def config_value():
    jacobian = JACOBIAN.numpy()
    direction = np.linalg.pinv(jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)) @ np.ones(2)
    direction /= np.linalg.norm(direction)
    return (jacobian @ direction).sum() * direction


def db_mtl_value():
    averages = 0.1 * JACOBIAN.numpy() / np.array([[1.0], [2.0]])
    norms = np.linalg.norm(averages, axis=1)
    return norms.max() / norms @ averages


def graddrop_value():
    jacobian = JACOBIAN.numpy()
    uniform = philox_uniform(torch.tensor([0, 0]), 0, torch.arange(3)).numpy()
    purity = (1 + jacobian.sum(0) / np.abs(jacobian).sum(0)) / 2
    return (np.where(purity > uniform, jacobian > 0, jacobian < 0) * jacobian).sum(0)


def rgw_value():
    noise = torch.randn(2, generator=torch.Generator().manual_seed(0)).double().numpy()
    return np.exp(noise) / np.exp(noise).sum() @ JACOBIAN.numpy()


def moco_value():
    jacobian = JACOBIAN.numpy()
    averages = 0.5 * np.array([[1.0], [2.0]]) * jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    scores = np.exp(0.5 - 0.1 * averages @ averages.T @ np.array([0.5, 0.5]))
    return scores / scores.sum() @ averages


def on_the_simplex(values):
    """The nearest point by bisection on the threshold."""
    low, high = values.min() - 1, values.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(values - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(values - low, 0)


def modo_value():
    jacobian, weights = JACOBIAN.numpy(), np.array([0.5, 0.5])
    return on_the_simplex(weights - 0.1 * (jacobian @ jacobian.T @ weights + 0.1 * weights)) @ jacobian


def sdmgrad_value():
    jacobian, weights, velocity = JACOBIAN.numpy(), np.array([0.5, 0.5]), 0.0
    normalised = jacobian @ jacobian.T / np.linalg.norm(jacobian, axis=1).mean() ** 2
    for _ in range(20):
        velocity = 0.5 * velocity + normalised @ (weights + 0.15)
        weights = on_the_simplex(weights - 10 * velocity)
    return (weights + 0.15) / 1.3 @ jacobian


def pcd_value():
    first, second = JACOBIAN.numpy() / np.sqrt((JACOBIAN.numpy() ** 2).sum(1, keepdims=True) + 1e-8)
    direction = first + max(0.0, 0.02 - first @ second / (second @ second)) * second
    return direction / np.linalg.norm(direction) * np.sqrt(18.0)


CASES = {
    "ConFIG": MethodCase(
        lambda k: methods.ConFIG(),
        config_value,
        "Eq. 2 with numpy's pinv",
        bad_options=(({"preference": [1.0, 0.0]}, r"preference\[1\] is 0.0, expected a number above 0"),),
    ),
    "CosReg": MethodCase(
        lambda k: methods.CosReg(),
        lambda: np.array([2.0, 2.0, 2.0]),
        "the sum: gradients of linear losses have no derivative",
        bad_options=(({"c": -1.0}, "c is -1.0"),),
    ),
    "DBMTL": MethodCase(
        lambda k: methods.DBMTL(k),
        db_mtl_value,
        "Algorithm 1's first step, in numpy",
        weighs=False,
        single_weight=0.1,
        bad_options=(
            ({"num_tasks": 2, "beta": 1.0}, "beta is 1.0, .* below 1"),
            ({"num_tasks": 2, "sigma": -0.5}, "sigma is -0.5"),
        ),
    ),
    "ExcessMTL": MethodCase(
        lambda k: methods.ExcessMTL(k),
        lambda: np.array([2.0, 2.0, 2.0]),
        "the sum: the first step keeps the weights at 1",
        scale_free=False,
        bad_options=(
            ({"num_tasks": 2, "first_step": "skip"}, "first_step is 'skip', expected one of 'keep', 'raw'"),
            ({"num_tasks": 2, "step_size": 0.0}, "step_size is 0.0, expected a number above 0"),
            ({"num_tasks": 2, "warmup": -1}, "warmup is -1"),
        ),
    ),
    "GradDrop": MethodCase(
        lambda k: methods.GradDrop(),
        graddrop_value,
        "Algorithm 1 on the first Philox numbers, in numpy",
        weighs=False,
        bad_options=(
            ({"f": "step"}, "f is 'step', expected one of 'linear', 'sigmoid'"),
            ({"kappa": -1.0}, "kappa is -1.0"),
            ({"leak": [0.0, 1.5]}, r"leak\[1\] is 1.5, expected a number at least 0 and at most 1"),
        ),
    ),
    "Krum": MethodCase(
        lambda k: methods.Krum(),
        lambda: np.array([-4.0, 1.0, 1.0]),
        "the first row: both are as far from the other",
        bad_options=(({"n_byzantine": -1}, "n_byzantine is -1"), ({"n_selected": 0}, "n_selected is 0")),
    ),
    "MoCo": MethodCase(
        lambda k: methods.MoCo(k),
        moco_value,
        "the first step, in numpy",
        weighs=False,
        degree=0.0,
        single_weight=None,
        bad_options=(
            ({"num_tasks": 2, "beta": 0.0}, "beta is 0.0, expected a number above 0 and at most 1"),
            *(({"num_tasks": 2, name: -1.0}, f"{name} is -1.0") for name in ("sigma", "gamma", "sigma_gamma", "rho")),
        ),
    ),
    "MoDo": MethodCase(
        lambda k: methods.MoDo(k),
        modo_value,
        "Algorithm 1 in numpy, with a projection by bisection",
        scale_free=False,
        bad_options=tuple(({"num_tasks": 2, name: -1.0}, f"{name} is -1.0") for name in ("gamma", "rho")),
    ),
    "PCD": MethodCase(
        lambda k: methods.PCD(k),
        pcd_value,
        "closed form for one constraint",
        scale_free=False,
        order="the first task is the primary one",
        bad_options=(
            ({"num_tasks": 2, "primary": []}, r"primary is \[\], expected at least one"),
            ({"num_tasks": 2, "primary": 2}, "primary is 2, expected a number at least 0 and at most 1"),
            ({"num_tasks": 2, "tau": 1.5}, "tau is 1.5"),
            ({"num_tasks": 2, "beta": 1.0}, "beta is 1.0, .* below 1"),
        ),
    ),
    "RGW": MethodCase(
        lambda k: methods.RGW(),
        rgw_value,
        "softmax of the first normal draw of seed 0, in numpy",
        order="weights are drawn in the order of the tasks",
        untraced="torch.Generator",
    ),
    "SDMGrad": MethodCase(
        lambda k: methods.SDMGrad(k),
        sdmgrad_value,
        "the paper's iteration in numpy, with a projection by bisection",
        bad_options=(
            ({"num_tasks": 2, "lam": -1.0}, "lam is -1.0"),
            ({"num_tasks": 2, "lr": -1.0}, "lr is -1.0"),
            ({"num_tasks": 2, "iterations": 0}, "iterations is 0"),
        ),
    ),
    "TrimmedMean": MethodCase(
        lambda k: methods.TrimmedMean(),
        lambda: np.array([1.0, 1.0, 1.0]),
        "the mean: nothing is trimmed",
        bad_options=(({"trim_number": -1}, "trim_number is -1"),),
    ),
}
