"""nash's row, and what alpha-fair weights have in common."""

import numpy as np
import torch
from scipy.optimize import nnls

from op_cases.common import GRAM_ERRORS, OpCase, generator, grams, random_gram


def fair_grams(seed, device):
    """name -> gram: the shared ones, tasks of very different sizes, and gradients that (nearly) cancel."""
    cases = grams(seed, device)
    scales = 10.0 ** torch.tensor([-6, 0, 3, -2], dtype=torch.float64, device=device)
    cases["badly-scaled"] = random_gram(4, 9, seed, device) * scales * scales[:, None]
    cases["opposite"] = torch.tensor([[1.0, -3.0], [-3.0, 9.0]], dtype=torch.float64, device=device)
    for name, distance in (("nearly-opposite", 1e-4), ("cancelling", 0.0)):
        jacobian = torch.randn(5, 8, dtype=torch.float64, generator=generator(seed))
        jacobian[4] = -jacobian[:4].mean(0) + distance * jacobian[4]
        cases[name] = (jacobian @ jacobian.T).to(device)
    cases["batch"] = torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4)
    cases["empty-batch"] = torch.zeros(0, 3, 3, dtype=torch.float64, device=device)
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = broken
    return cases


def hull_distance(unit):
    """Squared distance from 0 to the convex hull of gradients of length 1, by non-negative least squares."""
    values, vectors = np.linalg.eigh(unit)
    roots = (vectors * np.sqrt(np.maximum(values, 0.0))).T
    num_tasks = len(unit)
    rows, target = np.vstack([roots, np.ones((1, num_tasks))]), np.r_[np.zeros(num_tasks), 1.0]
    solution = nnls(rows, target)[0]
    solution /= solution.sum()
    return solution @ unit @ solution


def check_alpha_fair(gram, alpha, result):
    """The equation in extended precision, and whether it has a solution, by another algorithm."""
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram = gram.cpu().numpy()
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    problems, rows = gram.reshape(-1, num_tasks, num_tasks), weights.reshape(-1, num_tasks)
    for problem, row, bound, outcome in zip(problems, rows, certificate.flat, status.flat, strict=True):
        if not np.isfinite(problem).all():
            assert (outcome, bound) == (2, np.inf)
            assert (row == 0).all()
            continue
        present = np.diag(problem) > 0
        assert (row[~present] == 0).all()
        if not present.any():
            assert (outcome, bound) == (0, 0)
            continue
        small = problem[np.ix_(present, present)].astype(np.longdouble)
        lengths = np.sqrt(np.diag(small))
        distance = hull_distance((small / lengths / lengths[:, None]).astype(float))
        assert outcome == int(distance < 1e-13), distance
        w = row[present].astype(np.longdouble)
        if outcome == 0:
            assert (w > 0).all()
            residual = np.abs(small @ w * w ** (1 / np.longdouble(alpha)) - 1).max()
            assert residual <= 1e-5
            assert abs(residual - bound) <= 1e-7
        else:
            assert (w >= 0).all()
            assert abs(w.sum() - 1) <= 1e-12
            value = w @ small @ w / np.trace(small)
            assert value <= 1e-12
            assert abs(value - bound) <= 1e-14


CASES = [
    OpCase(
        "nash",
        inputs=lambda seed, device: {name: (gram,) for name, gram in fair_grams(seed, device).items()},
        check=lambda arguments, result: check_alpha_fair(arguments[0], 1.0, result),
        errors={name: ((bad,), message) for name, (bad, message) in GRAM_ERRORS.items()},
    )
]
