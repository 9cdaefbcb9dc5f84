"""min_norm's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, OpCase, grams, random_gram


def min_norm_inputs(seed, device):
    cases = {name: (gram,) for name, gram in grams(seed, device).items()}
    cases["batch"] = (torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4),)
    cases["empty-batch"] = (torch.zeros(0, 3, 3, dtype=torch.float64, device=device),)
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = (broken,)
    return cases


def check_min_norm(arguments, result):
    """Feasible, and optimal by the duality gap, recomputed here in extended precision."""
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram = arguments[0].cpu().numpy()
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    rows = zip(gram.reshape(-1, num_tasks, num_tasks), weights.reshape(-1, num_tasks), strict=True)
    for (problem, row), gap, outcome in zip(rows, certificate.flat, status.flat, strict=True):
        if not np.isfinite(problem).all():
            assert outcome == 2
            assert gap == np.inf
            assert (row == 0).all()
            continue
        assert outcome == 0
        assert gap <= 1e-8
        present = np.diag(problem) > 0
        assert (row >= 0).all()
        assert (row[~present] == 0).all()
        if present.any():
            assert abs(row.sum() - 1) <= 1e-12
            products = problem.astype(np.longdouble) @ row
            value = row @ products
            assert value - products[present].min() <= max(1e-8 * value, 1e-14 * np.trace(problem))


CASES = [
    OpCase(
        "min_norm",
        inputs=min_norm_inputs,
        check=check_min_norm,
        errors={name: ((bad,), message) for name, (bad, message) in GRAM_ERRORS.items()},
        differentiable_solver=((),),
    )
]
