"""The rows of methods whose weights are a function of the Gram matrix."""

import numpy as np
from method_case import JACOBIAN, MethodCase

from mtl_ext import methods


def cagrad_value():
    """The dual problem on a fine grid of the only free weight, then refined around its best point."""
    jacobian, c = JACOBIAN.numpy(), 0.4
    mean = jacobian.mean(0)
    radius = c * np.linalg.norm(mean)
    low, high = 0.0, 1.0
    for _ in range(40):
        grid = np.linspace(low, high, 101)
        points = grid[:, None] * jacobian[0] + (1 - grid[:, None]) * jacobian[1]
        best = np.argmin(points @ mean + radius * np.linalg.norm(points, axis=1))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 100)]
    point = (low + high) / 2 * jacobian[0] + (1 - (low + high) / 2) * jacobian[1]
    return 2 * (mean + radius / np.linalg.norm(point) * point) / (1 + c**2)


def nash_value():
    """For two tasks ``a_k = 1 / (|g_k| sqrt(1 + cos))``: both equations of G a = 1 / a hold; then length 1."""
    norms = np.linalg.norm(JACOBIAN.numpy(), axis=1)
    direction = (1 / norms) @ JACOBIAN.numpy()
    return direction / np.linalg.norm(direction)


def aligned_value():
    """All singular values replaced by the smallest."""
    left, values, right = np.linalg.svd(JACOBIAN.numpy(), full_matrices=False)
    return (values.min() * left @ right).sum(0)


def imtlg_value():
    """The paper's linear system: the difference of gradients is orthogonal to the difference of directions."""
    jacobian = JACOBIAN.numpy()
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    difference = units[0] - units[1]
    weight = jacobian[0] @ difference / ((jacobian[0] - jacobian[1]) @ difference)
    return (1 - weight) * jacobian[0] + weight * jacobian[1]


def projected(vector):
    """The nearest vector without conflict, for two gradients of which it conflicts with one."""
    for row in JACOBIAN.numpy():
        if row @ vector < 0:
            vector = vector - row @ vector / (row @ row) * row
    assert (JACOBIAN.numpy() @ vector >= -1e-12).all()
    return vector


PREFERENCE = ({"preference": [1.0, -1.0]}, r"preference\[1\] is -1.0, expected a number at least 0")
REG_EPS = ({"reg_eps": -1.0}, "reg_eps is -1.0")
BAD_PRIMARY = ({"num_tasks": 2, "primary": 2}, "primary is 2, expected a number at least 0 and at most 1")
PRIMARY_FIRST = "the first task is the primary one"

CASES = {
    "AlignedMTL": MethodCase(
        lambda k: methods.AlignedMTL(),
        aligned_value,
        "the singular value decomposition of the gradients, in numpy",
        bad_options=(({"scale_mode": "max"}, "scale_mode is 'max'"), PREFERENCE),
    ),
    "CAGrad": MethodCase(
        lambda k: methods.CAGrad(),
        cagrad_value,
        "the dual problem by a refined grid search, in numpy",
        single_weight=1.4 / 1.16,
        bad_options=(({"c": -1.0}, "c is -1.0"), ({"rescale": 3}, "rescale is 3, expected one of 0, 1, 2")),
    ),
    "DualProj": MethodCase(
        lambda k: methods.DualProj(),
        lambda: projected(JACOBIAN.numpy().mean(0)),
        "the mean, projected by hand",
        bad_options=(REG_EPS, PREFERENCE),
    ),
    "FairGrad": MethodCase(
        lambda k: methods.FairGrad(),
        nash_value,
        "for alpha = 1 the Nash solution of two tasks in closed form",
        degree=0.0,
        single_weight=None,
        bad_options=(
            ({"alpha": 0.0}, "alpha is 0.0, expected a number above 0"),
            ({"max_norm": 0.0}, "max_norm is 0.0"),
        ),
    ),
    "GCS": MethodCase(
        lambda k: methods.GCS(k),
        lambda: JACOBIAN.numpy()[0],
        "the primary row: the other one conflicts with it",
        order=PRIMARY_FIRST,
        bad_options=(BAD_PRIMARY,),
    ),
    "GradVac": MethodCase(
        lambda k: methods.GradVac(k),
        lambda: np.array([0.5848, 3.8012, 3.8012]),
        "PCGrad's value row: with targets of 0 the first step is the same projection",
        order="each task meets the others in an order that is drawn",
        untraced="torch.Generator",
        bad_options=(
            ({"num_tasks": 2, "beta": 2.0}, "beta is 2.0"),
            ({"num_tasks": 2, "groups": "layer"}, "groups is 'layer', expected one of 'model', 'tensor'"),
        ),
    ),
    "IAL": MethodCase(
        lambda k: methods.IAL(k),
        lambda: JACOBIAN.numpy()[0] + 0.1 * np.sqrt(18 / 38) * JACOBIAN.numpy()[1],
        "Eq. 7 by hand, with 1 - 0.9 as the weight of the second row, whose squared norm is 38 and the other's 18",
        order=PRIMARY_FIRST,
        bad_options=(
            BAD_PRIMARY,
            ({"num_tasks": 2, "indicator": "loss"}, "indicator is 'loss', expected one of 'uncertainty', 'training_"),
            ({"num_tasks": 2, "indicator": None}, "indicator is None, expected a name, a number"),
            ({"num_tasks": 2, "indicator": [0.1]}, r"indicator has shape \[1\], expected \[num_tasks\] = \[2\]"),
            ({"num_tasks": 2, "indicator_options": {"alpha": 1.0}}, "indicator 'uncertainty' has g"),
            ({"num_tasks": 2, "method": "UW"}, "method is 'UW', expected one that weighs losses"),
            ({"num_tasks": 2, "method": methods.UW(3)}, "method is for 3 tasks, expected num_tasks = 2"),
            ({"num_tasks": 2, "initial_sigma": 0.0}, "initial_sigma is 0.0, expected a number above 0"),
        ),
    ),
    "IMTL": MethodCase(
        lambda k: methods.IMTL(k),
        imtlg_value,
        "IMTL-G's linear system for two tasks: all scales are 1 at first",
    ),
    "IMTLG": MethodCase(lambda k: methods.IMTLG(), imtlg_value, "the paper's linear system for two tasks, in numpy"),
    "NashMTL": MethodCase(
        lambda k: methods.NashMTL(k),
        nash_value,
        "closed form for two tasks, of length 1",
        degree=0.0,
        single_weight=None,
        bad_options=(
            ({"num_tasks": 2, "max_norm": -1.0}, "max_norm is -1.0"),
            ({"num_tasks": 2, "update_every": 0}, "update_every is 0"),
        ),
    ),
    "OLAUX": MethodCase(
        lambda k: methods.OLAUX(k),
        lambda: JACOBIAN.numpy()[0] + 0.1 * JACOBIAN.numpy()[1],
        "the first weights: 1 for the primary row, 0.1 for the other",
        scale_free=False,
        order=PRIMARY_FIRST,
        bad_options=(
            BAD_PRIMARY,
            ({"num_tasks": 2, "initial": -0.1}, "initial is -0.1"),
            ({"num_tasks": 2, "lr": -1.0}, "lr is -1.0"),
            ({"num_tasks": 2, "interval": 0}, "interval is 0"),
        ),
    ),
    "UPGrad": MethodCase(
        lambda k: methods.UPGrad(),
        lambda: (projected(JACOBIAN[0].numpy()) + projected(JACOBIAN[1].numpy())) / 2,
        "both gradients, projected by hand",
        bad_options=(REG_EPS, PREFERENCE),
    ),
}
