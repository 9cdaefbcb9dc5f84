"""nash's row, and what alpha-fair weights have in common."""

import numpy as np
import torch
from scipy.optimize import nnls

from mtl_ext import ops
from op_cases.common import GRAM_ERRORS, OpCase, generator, grams, random_gram


def fair_grams(seed, device):
    """name -> gram: the shared ones, tasks of very different sizes, and gradients that (nearly) cancel."""
    cases = grams(seed, device)
    for name, decades in (("badly-scaled", (-6, 0, 3, -2)), ("20-decades", (-10, 10, 3, 0))):
        scales = 10.0 ** torch.tensor(decades, dtype=torch.float64, device=device)
        cases[name] = random_gram(4, 9, seed, device) * scales * scales[:, None]
    cases["opposite"] = torch.tensor([[1.0, -3.0], [-3.0, 9.0]], dtype=torch.float64, device=device)
    for name, distance in (("nearly-opposite", 1e-4), ("almost-opposite", 1e-6), ("cancelling", 0.0)):
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


def check_solution(gram, alpha, weights, certificate):
    """The equation, in extended precision."""
    assert (weights > 0).all()
    target = weights ** (-1 / np.longdouble(alpha))
    error = np.abs(gram @ weights - target)
    residual = (error / np.maximum(target, 1e-6 * (np.abs(gram) @ weights))).max()
    assert residual <= 1e-8
    assert abs(residual - certificate) <= 1e-8


def check_stationary(gram, weights, certificate):
    """A combination of length 0 up to rounding, in extended precision."""
    lengths = np.sqrt(np.diag(gram))
    assert (weights >= 0).all()
    assert abs(weights.sum() - 1) <= 1e-12
    square = weights @ gram @ weights / (weights @ lengths) ** 2
    assert square <= 1.1e-14 * len(gram)
    assert abs(square - certificate) <= 1e-14
    assert weights @ gram @ weights <= certificate * np.trace(gram) + 1e-14 * np.trace(gram)


def check_alpha_fair(gram, alpha, result):
    """Every problem of a batch; whether it has a solution is decided by another algorithm."""
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
        assert outcome == int(distance < 1e-14 * len(small)), distance
        solution = row[present].astype(np.longdouble)
        if outcome == 0:
            check_solution(small, alpha, solution, bound)
        else:
            check_stationary(small, solution, bound)


def check_nash(arguments, result):
    (gram,) = arguments
    check_alpha_fair(gram, 1.0, result)
    if torch.isfinite(gram).all():  # FairGrad has the same solutions for alpha = 1, at any scale
        squares = gram.diagonal(dim1=-2, dim2=-1)
        trace = squares.sum(-1, keepdim=True).clamp_min(1e-300)
        weights, _, status = ops.fairgrad(gram / trace[..., None], 1.0)
        found, expected = result[0][status == 0], (weights / trace.sqrt())[status == 0]
        # Nearly opposite gradients get long together, |w_k g_k| >> 1, and so does what rounding of G makes of them.
        bound = 1e-14 * (1 + found**2 * squares[status == 0]).sum(-1, keepdim=True)
        assert ((found - expected).abs() <= bound * expected).all()


CASES = [
    OpCase(
        "nash",
        inputs=lambda seed, device: {name: (gram,) for name, gram in fair_grams(seed, device).items()},
        check=check_nash,
        errors={name: ((bad,), message) for name, (bad, message) in GRAM_ERRORS.items()},
        differentiable_solver=((),),
    )
]
