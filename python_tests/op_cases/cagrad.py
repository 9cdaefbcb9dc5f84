"""cagrad's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase, grams, random_gram

EPS = 2.0**-52


def cagrad_inputs(seed, device):
    radii = (0.4, 0.0, 0.9, 1.0, 1.5)
    cases = {
        name: (gram, radii[index % len(radii)], EPS) for index, (name, gram) in enumerate(grams(seed, device).items())
    }
    for c in radii:
        cases[f"K6-c{c}"] = (random_gram(6, 8, seed, device), c, EPS)
        cases[f"rank-deficient-c{c}"] = (random_gram(9, 3, seed, device), c, EPS)
    cases["batch"] = (
        torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4),
        0.4,
        EPS,
    )
    cases["empty-batch"] = (torch.zeros(0, 3, 3, dtype=torch.float64, device=device), 0.4, EPS)
    opposite = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, device=device)
    cases["opposite"] = (opposite, 0.4, EPS)
    cases["opposite-c1"] = (opposite, 1.0, EPS)
    cases["mean-zero"] = (opposite[:2, :2], 0.4, EPS)
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = (broken, 0.4, EPS)
    return cases


def check_solved(gram, c, num_tasks, weights):
    """The weights are those of a w on the simplex whose duality gap closes, in extended precision."""
    matrix = gram.astype(np.longdouble) * (len(gram) / np.trace(gram))
    q = matrix.sum(0) / num_tasks
    mean = np.sqrt(q.sum() / num_tasks)
    v = weights - 1 / num_tasks
    if c == 0:
        assert (v == 0).all()
        return
    assert (v >= 0).all()
    w = v / v.sum()
    length = np.sqrt(w @ matrix @ w)
    tolerance = max(1e-6, 1e-14 / length**2)  # where w nearly cancels the gradients, rounding of G moves its length
    assert abs(v.sum() * length - c * mean) <= tolerance * c * mean
    slope = q + c * mean / length * (matrix @ w)
    gap = (w @ slope - slope.min()) / ((1 + c) * mean)
    assert gap * min(1, length**2 / 1e-6) <= 1e-8


def check_cagrad(arguments, result):
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram, c, eps = arguments[0].cpu().numpy(), *arguments[1:]
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    rows = zip(gram.reshape(-1, num_tasks, num_tasks), weights.reshape(-1, num_tasks), strict=True)
    for (problem, row), found, outcome in zip(rows, certificate.flat, status.flat, strict=True):
        if not np.isfinite(problem).all():
            assert outcome == 2
            assert found == np.inf
            assert (row == 0).all()
            continue
        present = np.diag(problem) > 0
        assert (row[~present] == 0).all()
        assert found <= 1e-8
        problem, row = problem[np.ix_(present, present)], row[present]
        if outcome == 1:
            assert (row >= 0).all()
            assert abs(row.sum() - 1) <= 1e-12
            assert row @ problem @ row <= 1.01 * num_tasks * eps * np.trace(problem)
        elif present.any():
            assert outcome == 0
            check_solved(problem, c, num_tasks, row)


CASES = [
    OpCase(
        "cagrad",
        inputs=cagrad_inputs,
        check=check_cagrad,
        errors={
            **{name: ((bad, 0.4, EPS), message) for name, (bad, message) in GRAM_ERRORS.items()},
            "negative-c": ((SQUARE, -1.0, EPS), "c is -1, expected a finite number of at least 0"),
            "infinite-c": ((SQUARE, float("inf"), EPS), "c is inf, expected a finite number of at least 0"),
            "eps": ((SQUARE, 0.4, 0.0), "eps is 0, expected a number between 0 and 1"),
        },
        differentiable_solver=((0.4, EPS), (0.9, EPS), (0.0, EPS)),
    )
]
