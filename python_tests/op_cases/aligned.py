"""aligned's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase, generator, grams, random_gram

EPS = 2.0**-23


def aligned_inputs(seed, device):
    matrices = grams(seed, device)
    matrices["two-levels"] = torch.diag(torch.tensor([2.0, 2.0, 2.0, 5.0, 5.0], dtype=torch.float64, device=device))
    matrices["unit"] = torch.eye(7, dtype=torch.float64, device=device)
    spread = 10.0 ** torch.tensor([0.0, -1.0, 1.0, -2.0], dtype=torch.float64, device=device)
    matrices["badly-scaled"] = random_gram(4, 9, seed, device) * spread * spread[:, None]
    matrices["batch"] = torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4)
    matrices["empty-batch"] = torch.zeros(0, 3, 3, dtype=torch.float64, device=device)
    matrices["non-finite"] = random_gram(3, 5, seed, device)
    matrices["non-finite"][0, 1] = torch.nan
    cases = {}
    for mode in ("min", "median", "rmse"):
        suffix = "" if mode == "min" else f"-{mode}"
        cases |= {f"{name}{suffix}": (gram, mode, EPS) for name, gram in matrices.items()}
    own = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator(seed)).to(device)
    cases["shared-preference"] = (matrices["batch"], "median", EPS, own[1, 2])
    cases["own-preference"] = (matrices["batch"], "min", EPS, own)
    cases["preference-K3"] = (matrices["K3"], "rmse", EPS, own[0, 0, :3])
    cases["non-finite-preference"] = (matrices["batch"], "min", EPS, own / own.abs().round())
    cases["full-precision"] = (matrices["K8"], "min", 2.0**-52)
    return cases


def expected_weights(gram, preference, mode, eps):
    """The formula with LAPACK's eigenpairs, for gradients that are not zero."""
    values, vectors = np.linalg.eigh(gram / np.trace(gram))
    kept = values > values[-1] * len(gram) * eps
    values, vectors = values[kept], vectors[:, kept]
    sigma = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[mode]
    return vectors * np.sqrt(sigma / values) @ (vectors.T @ preference), np.sqrt(values[-1] / values[0])


def check_aligned(arguments, result):
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram, mode, eps, *own = arguments
    gram = gram.cpu().numpy()
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    p = own[0].cpu().numpy() if own else np.ones(num_tasks)
    rows = zip(
        gram.reshape(-1, num_tasks, num_tasks),
        np.broadcast_to(p, weights.shape).reshape(-1, num_tasks),
        weights.reshape(-1, num_tasks),
        certificate.flat,
        status.flat,
        strict=True,
    )
    for problem, wanted, found, bound, outcome in rows:
        if not (np.isfinite(problem).all() and np.isfinite(wanted).all()):
            assert (outcome, bound) == (2, np.inf)
            assert (found == 0).all()
            continue
        present = np.diag(problem) > 0
        assert outcome == 0
        assert bound <= 1e-12
        assert (found[~present] == 0).all()
        if present.any():
            expected, condition = expected_weights(problem[np.ix_(present, present)], wanted[present], mode, eps)
            np.testing.assert_allclose(
                found[present], expected, rtol=0, atol=1e-14 * condition**2 * np.abs(wanted).max()
            )


ONES = torch.ones(2, dtype=torch.float64)
CASES = [
    OpCase(
        "aligned",
        inputs=aligned_inputs,
        check=check_aligned,
        errors={
            **{name: ((bad, "min", EPS), message) for name, (bad, message) in GRAM_ERRORS.items()},
            "mode": ((SQUARE, "max", EPS), "scale_mode is 'max', expected 'min', 'median' or 'rmse'"),
            "eps": ((SQUARE, "min", -1.0), "eps is -1, expected at least 0 and below 1"),
            "preference-shape": ((SQUARE, "min", EPS, ONES[:1]), "preference has shape [1], expected [K] = [2]"),
            "preference-batch": (
                (SQUARE[None], "min", EPS, ONES[None, None]),
                "preference has shape [1, 1, 2], expected [K] = [2] or [..., K] = [1, 2]",
            ),
            "preference-dtype": (
                (SQUARE, "min", EPS, ONES.float()),
                "preference has dtype torch.float32, expected torch.float64",
            ),
        },
        differentiable_solver=(("min", EPS), ("median", EPS), ("rmse", EPS)),
    )
]
