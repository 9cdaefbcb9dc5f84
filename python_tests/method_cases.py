"""One row per method: how to build it and what it must give. Adding a method adds one row to CASES."""

import numpy as np
import torch
from gradient_cases import CASES as GRADIENT_CASES
from gram_cases import CASES as GRAM_CASES
from method_case import JACOBIAN, MethodCase

from mtl_ext import methods


def rlw_value():
    noise = torch.randn(2, generator=torch.Generator().manual_seed(0)).double().numpy()
    return np.exp(noise) / np.exp(noise).sum() @ JACOBIAN.numpy()


def min_norm_of_two():
    a, b = JACOBIAN.numpy()
    weight = np.clip(b @ (b - a) / ((b - a) @ (b - a)), 0, 1)
    return weight * a + (1 - weight) * b


def weighted(*weights):
    return lambda: np.array(weights) @ JACOBIAN.numpy()


def cosmos_value():
    preference, losses = np.array([0.5, 0.5]), np.array([1.0, 2.0])
    norms = np.linalg.norm(preference) * np.linalg.norm(losses)
    cosine = preference @ losses / norms
    return (preference - (preference / norms - cosine * losses / (losses @ losses))) @ JACOBIAN.numpy()


def pbi_value():
    ray, losses = np.array([1.0, 1.0]) / np.sqrt(2), np.array([1.0, 2.0])
    aside = losses - losses @ ray * ray
    return (ray + aside / np.linalg.norm(aside)) @ JACOBIAN.numpy()


def go4align_value():
    losses = np.array([1.0, 2.0])
    probabilities = np.exp(-1e-4 * losses) / np.exp(-1e-4 * losses).sum()
    return probabilities * losses.sum() / losses @ JACOBIAN.numpy()


def saal_names(num_tasks):
    return ["a", *(f"{k}->a" for k in range(1, num_tasks))]


SAAL_NAMES = ({"num_tasks": 2, "tasks": ["a", "a"]}, r"tasks is \['a', 'a'\], expected 2 different names")
CASES = {
    "EW": MethodCase(lambda k: methods.EW(), lambda: np.array([2.0, 2.0, 2.0]), "sum of the rows"),
    "RLW": MethodCase(
        lambda k: methods.RLW(),
        rlw_value,
        "softmax of the first normal draw of seed 0, in numpy",
        order="weights are drawn in the order of the tasks",
        bad_options=(({"distribution": "cauchy"}, "distribution is 'cauchy', expected one of 'normal', 'uniform'"),),
    ),
    "UW": MethodCase(
        lambda k: methods.UW(k),
        lambda: np.array([1.0, 1.0, 1.0]),
        "half the sum: all log variances are 0",
        single_weight=0.5,
        bad_options=(({"num_tasks": 2, "form": 3}, "form is 3, expected one of 1, 2"),),
    ),
    "PCGrad": MethodCase(
        lambda k: methods.PCGrad(),
        lambda: np.array([0.5848, 3.8012, 3.8012]),
        "the value row published with TorchJD",
        order="each task meets the others in an order that is drawn",
        untraced="torch.Generator",
    ),
    "MGDA": MethodCase(
        lambda k: methods.MGDA(),
        min_norm_of_two,
        "closed form for two tasks (Sener & Koltun 2018, Algorithm 1)",
        bad_options=(({"normalization": "l1"}, "normalization is 'l1'"),),
    ),
    "CvxWeighting": MethodCase(
        lambda k: methods.CvxWeighting(),
        min_norm_of_two,
        "closed form for two tasks (Sener & Koltun 2018, Algorithm 1)",
        absolute=1e-7,
        untraced="cvxpylayers",
        bad_options=(
            ({"parameter": "cholesky"}, "parameter is 'cholesky'"),
            ({"layer": "mine"}, "layer is 'mine', expected a CvxpyLayer"),
        ),
    ),
    "ATW": MethodCase(
        lambda k: methods.ATW(k),
        weighted(0.5, 0.5),
        "half the sum: all log variances are 0 and no loss has changed",
        single_weight=0.5,
        bad_options=(({"num_tasks": 2, "decay": 1.5}, "decay is 1.5"),),
    ),
    "AutoLambda": MethodCase(
        lambda k: methods.AutoLambda(k),
        weighted(0.1, 0.1),
        "a tenth of the sum: weights start at 0.1 and move only when they are updated",
        single_weight=0.1,
        bad_options=(
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
            ({"num_tasks": 2, "primary": []}, r"primary is \[\], expected at least one"),
            ({"num_tasks": 2, "primary": ["a", "a"]}, "expected each task once"),
            ({"num_tasks": 2, "mode": "exact"}, "mode is 'exact', expected one of 'jvp', 'fd'"),
            ({"num_tasks": 2, "virtual_step": "adam"}, "virtual_step is 'adam', expected one of 'own', 'sgd'"),
            ({"num_tasks": 2, "initial": [0.1]}, r"initial has shape \[1\], expected \[num_tasks\] = \[2\]"),
        ),
    ),
    "COSMOS": MethodCase(
        lambda k: methods.COSMOS(k),
        cosmos_value,
        "derivative of the formula by hand, in numpy",
        bad_options=(
            ({"num_tasks": 2, "lambda_": -1.0}, "lambda_ is -1.0"),
            ({"num_tasks": 2, "preference": [1.0]}, r"preference has shape \[1\], expected \[num_tasks\] = \[2\]"),
        ),
    ),
    "CRMOGM": MethodCase(
        lambda k: methods.CRMOGM(),
        min_norm_of_two,
        "the first call is the method's own: MGDA's closed form for two tasks",
        bad_options=(
            ({"alpha": 1.1}, "alpha is 1.1"),
            ({"method": methods.EW()}, r"method is EW\(\), expected one whose weights depend on the Gram matrix"),
        ),
    ),
    "DTP": MethodCase(
        lambda k: methods.DTP(k),
        weighted(1.0, 1.0),
        "the sum: no performance is known yet",
        bad_options=(
            ({"num_tasks": 2, "gamma": -1}, "gamma is -1"),
            ({"num_tasks": 2, "momentum": 2}, "momentum is 2"),
        ),
    ),
    "DWA": MethodCase(
        lambda k: methods.DWA(k),
        weighted(1.0, 1.0),
        "the sum: equal weights in the first two epochs",
        bad_options=(
            ({"num_tasks": 2, "temperature": 0}, "temperature is 0, expected a number above 0"),
            ({"num_tasks": 2, "window": -1}, "window is -1"),
        ),
    ),
    "FAMO": MethodCase(
        lambda k: methods.FAMO(k),
        weighted(2 / 3, 1 / 3),
        "inverse losses, normalised: the logits are equal",
        bad_options=(
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
            ({"num_tasks": 2, "weight_decay": -1}, "weight_decay is -1"),
            (
                {"num_tasks": 2, "lower_bounds": [0, float("inf")]},
                r"lower_bounds\[1\] is inf, expected a finite number",
            ),
        ),
    ),
    "FixedWeights": MethodCase(
        lambda k: methods.FixedWeights(k),
        weighted(1.0, 0.1),
        "the default: 1 for the first task, 0.1 for others",
        order="by default the first task has another weight",
        bad_options=(
            ({"num_tasks": 2, "weights": [1.0, -0.5]}, r"weights\[1\] is -0.5, expected a finite number of at least 0"),
        ),
    ),
    "FORUM": MethodCase(
        lambda k: methods.FORUM(k),
        weighted(0.5, 0.5),
        "half the sum: without meta losses it descends the loss of the lower level, whose weights start equal",
        bad_options=(
            ({"num_tasks": 2, "phi": -0.1}, "phi is -0.1"),
            ({"num_tasks": 2, "inner_steps": 0}, "inner_steps is 0"),
            ({"num_tasks": 2, "inner_lr": 0}, "inner_lr is 0, expected a number above 0"),
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
        ),
    ),
    "GLS": MethodCase(
        lambda k: methods.GLS(),
        weighted(np.sqrt(2) / 2, np.sqrt(2) / 4),
        "d sqrt(ab): sqrt(b / a) / 2 and sqrt(a / b) / 2",
    ),
    "GO4Align": MethodCase(
        lambda k: methods.GO4Align(k),
        go4align_value,
        "two tasks in two groups: the formula without k-means, in numpy",
        bad_options=(
            ({"num_tasks": 2, "num_groups": 0}, "num_groups is 0"),
            ({"num_tasks": 2, "eta": -1}, "eta is -1"),
        ),
    ),
    "GradNorm": MethodCase(
        lambda k: methods.GradNorm(k),
        weighted(1.0, 1.0),
        "the sum: the first weights are 1",
        bad_options=(
            ({"num_tasks": 2, "alpha": -1.5}, "alpha is -1.5"),
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
            ({"num_tasks": 2, "layer": "first"}, "layer is 'first', expected 'last', 'all' or parameters"),
        ),
    ),
    "IMTLL": MethodCase(
        lambda k: methods.IMTLL(k),
        weighted(1.0, 1.0),
        "the sum: all scales are 1",
    ),
    "MOML": MethodCase(
        lambda k: methods.MOML(k),
        weighted(0.5, 0.5),
        "half the sum: weights start equal and move only when they are updated",
        bad_options=(
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
            ({"num_tasks": 2, "mode": "exact"}, "mode is 'exact', expected one of 'jvp', 'fd'"),
            ({"num_tasks": 2, "virtual_step": "adam"}, "virtual_step is 'adam', expected one of 'own', 'sgd'"),
        ),
    ),
    "PBI": MethodCase(
        lambda k: methods.PBI(k),
        pbi_value,
        "derivative of the formula by hand, in numpy",
        bad_options=(
            ({"num_tasks": 2, "theta": -1.0}, "theta is -1.0"),
            ({"num_tasks": 2, "preference": [0, 0]}, "preference is all 0"),
            ({"num_tasks": 2, "reference": [0.0, np.nan]}, r"reference\[1\] is nan"),
        ),
    ),
    "PUW": MethodCase(
        lambda k: methods.PUW(k),
        weighted(1.0, 1.0),
        "the sum: warm-up",
        order="particles are drawn in the order of the tasks",
        bad_options=(
            ({"num_tasks": 2, "num_particles": 1}, "num_particles is 1"),
            ({"num_tasks": 2, "warmup": 0}, "warmup is 0"),
            ({"num_tasks": 2, "temperature": 0}, "temperature is 0"),
            ({"num_tasks": 2, "spread": -1}, "spread is -1"),
        ),
    ),
    "SAALe": MethodCase(
        lambda k: methods.SAALe(k, tasks=saal_names(k)),
        weighted(0.5, 0.5),
        "half the sum: a task and its self-auxiliary share weight 1",
        bad_options=(SAAL_NAMES,),
    ),
    "SAALw": MethodCase(
        lambda k: methods.SAALw(k, tasks=saal_names(k)),
        weighted(0.5, 0.5),
        "half the sum: a task and its self-auxiliary share weight 1, and weights move only when they are updated",
        bad_options=(
            SAAL_NAMES,
            ({"num_tasks": 2, "lr": -1}, "lr is -1"),
            ({"num_tasks": 2, "mode": "exact"}, "mode is 'exact', expected one of 'jvp', 'fd'"),
            ({"num_tasks": 2, "fd_step": 0.01}, "fd_step is 0.01, expected one of 'lr', 'norm'"),
            ({"num_tasks": 2, "virtual_step": "adam"}, "virtual_step is 'adam', expected one of 'own', 'sgd'"),
        ),
    ),
    "SI": MethodCase(lambda k: methods.SI(), weighted(1.0, 0.5), "inverse losses"),
    "STCH": MethodCase(
        lambda k: methods.STCH(k),
        weighted(1.0, 0.5),
        "inverse losses: warm-up",
        bad_options=(
            ({"num_tasks": 2, "mu": 0}, "mu is 0"),
            ({"num_tasks": 2, "form": "square"}, "form is 'square'"),
            ({"num_tasks": 2, "warmup_epochs": 0}, "warmup_epochs is 0"),
            ({"num_tasks": 2, "preference": [1, 1]}, "preference and reference belong to form='linear'"),
            ({"num_tasks": 2, "form": "linear", "reference": [0]}, r"reference has shape \[1\]"),
        ),
    ),
    "TaskObjectiveWeights": MethodCase(
        lambda k: methods.TaskObjectiveWeights(k),
        weighted(0.5, 0.5),
        "half the sum: all log variances are 0",
        single_weight=0.5,
        bad_options=(
            ({"num_tasks": 3, "groups": [0, 0]}, r"groups is \[0, 0\], expected the task of each of the 3 losses"),
            ({"num_tasks": 3, "groups": [0, 0, 2]}, r"groups is \[0, 0, 2\]"),
        ),
    ),
}

CASES |= GRADIENT_CASES | GRAM_CASES
