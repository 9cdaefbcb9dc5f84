"""imtl_g's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, OpCase, grams, random_gram

EPS64, EPS32 = 2.0**-52, 2.0**-23


def imtl_g_inputs(seed, device):
    cases = {name: (gram, EPS64) for name, gram in grams(seed, device).items()}
    cases |= {f"{name}-float32": (gram, EPS32) for name, gram in grams(seed, device).items()}
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64, device=device)
    cases["opposite"] = (opposite, EPS64)
    cases["parallel"] = (torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=torch.float64, device=device), EPS64)
    cases["diagonal"] = (torch.diag(torch.arange(1.0, 6.0, dtype=torch.float64, device=device)), EPS64)
    scales = 10.0 ** torch.arange(-2.0, 3.0, dtype=torch.float64, device=device)
    cases["badly-scaled"] = (random_gram(5, 9, seed, device) * scales[:, None] * scales, EPS64)
    cases["batch"] = (torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4), EPS32)
    cases["empty-batch"] = (torch.zeros(0, 3, 3, dtype=torch.float64, device=device), EPS32)
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = (torch.stack([broken, random_gram(3, 5, seed, device)]), EPS32)
    return cases


def check_problem(gram, eps, weights, certificate, status):
    """One problem without zero gradients, against the pseudoinverse and its defining conditions."""
    num_tasks = len(gram)
    scaled = gram / np.trace(gram)
    lengths = np.sqrt(np.diag(scaled))
    values, vectors = np.linalg.eigh(scaled)
    kept = values > num_tasks * eps * values[-1]
    solution = (vectors[:, kept] / values[kept]) @ (vectors[:, kept].T @ lengths)
    assert certificate <= 1e-13 * num_tasks
    if abs(solution.sum()) <= num_tasks * eps * abs(solution).sum():
        assert status == 1
        assert (weights == 0).all()
        return
    assert status == 0
    assert abs(weights.sum() - 1) <= 1e-14 * abs(weights).sum() * num_tasks
    condition = values[-1] / values[kept].min() * abs(solution).sum() / abs(solution.sum())
    expected = solution / solution.sum()
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-14 * num_tasks * condition * abs(expected).max())
    if kept.all():
        projections = (scaled.astype(np.longdouble) @ weights) / lengths
        np.testing.assert_allclose(projections, projections.mean(), rtol=1e-13 * num_tasks * condition)


def check_imtl_g(arguments, result):
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram, eps = arguments[0].cpu().numpy(), arguments[1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    for index in np.ndindex(gram.shape[:-2]):
        if not np.isfinite(gram[index]).all():
            assert status[index] == 2
            assert certificate[index] == np.inf
            assert (weights[index] == 0).all()
            continue
        present = np.diag(gram[index]) > 0
        assert (weights[index][~present] == 0).all()
        if present.any():
            problem = gram[index][np.ix_(present, present)]
            check_problem(problem, eps, weights[index][present], certificate[index], status[index])
        else:
            assert status[index] == certificate[index] == 0


CASES = [
    OpCase(
        "imtl_g",
        inputs=imtl_g_inputs,
        check=check_imtl_g,
        errors={name: ((bad, EPS32), message) for name, (bad, message) in GRAM_ERRORS.items()},
        differentiable_solver=((EPS32,),),
    )
]
