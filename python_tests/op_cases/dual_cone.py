"""dual_cone's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase, generator, grams, random_gram


def bounds(num_tasks, seed, device):
    """DualProj's, UPGrad's first and last, negative, mixed and widely spread ones."""
    draw = torch.randn(3, num_tasks, dtype=torch.float64, generator=generator(seed))
    rows = [
        torch.full((1, num_tasks), 1 / num_tasks, dtype=torch.float64),
        torch.eye(num_tasks, dtype=torch.float64)[[0, -1]] / num_tasks,
        -draw[:1].abs(),
        draw[1:2],
        draw[2:] * 10.0 ** torch.linspace(-6, 9, num_tasks, dtype=torch.float64),
        torch.zeros(1, num_tasks, dtype=torch.float64),
    ]
    return torch.cat(rows).to(device)


def dual_cone_inputs(seed, device):
    cases = {name: (gram, bounds(len(gram), seed, device)) for name, gram in grams(seed, device).items()}
    batch = torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4)
    cases["batch"] = (batch, bounds(4, seed, device).expand(2, 3, -1, -1))
    cases["empty-batch"] = (batch[:0], batch[:0])
    cases["no-bounds"] = (batch, batch[..., :0, :])
    lengths = 10.0 ** torch.linspace(-9, 9, 5, dtype=torch.float64, device=device)
    spread = random_gram(5, 7, seed, device) * lengths * lengths[:, None]
    cases["spread-lengths"] = (spread, torch.eye(5, dtype=torch.float64, device=device))
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64, device=device)
    cases["opposite"] = (opposite, bounds(2, seed, device))
    indefinite = opposite.clone()
    indefinite[0, 1] = indefinite[1, 0] = -1.0 - 1e-15
    cases["indefinite"] = (indefinite, bounds(2, seed, device))
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = (broken, bounds(3, seed, device))
    infinite = bounds(3, seed, device)
    infinite[1, 2] = torch.inf
    cases["infinite-bound"] = (random_gram(3, 5, seed, device), infinite)
    return cases


def violation(gram, lower, weights):
    """The certificate, in extended precision; gram without zero gradients."""
    gram, lower, weights = (value.astype(np.longdouble) for value in (gram, lower, weights))
    lengths = np.sqrt(np.diag(gram))
    products = gram @ weights / lengths
    wrong = np.where(weights > lower, np.abs(products), -products).max()
    total = max(np.abs(weights * lengths).sum(), 1e-12 * np.abs(lower * lengths).max())
    return max(wrong, 0) / max(np.sqrt(max(products @ (weights * lengths), 0)), 1e-5 * total, 1e-300)


def check_dual_cone(arguments, result):
    gram, lower = (argument.cpu().numpy() for argument in arguments)
    weights, certificate, status = (value.cpu().numpy() for value in result)
    num_bounds, num_tasks = lower.shape[-2:]
    assert weights.shape == lower.shape
    assert certificate.shape == status.shape == lower.shape[:-1]
    matrices = np.repeat(gram.reshape(-1, num_tasks, num_tasks), num_bounds, 0)
    rows = (value.reshape(-1, num_tasks) for value in (lower, weights))
    for problem, low, row, found, outcome in zip(matrices, *rows, certificate.flat, status.flat, strict=True):
        if not (np.isfinite(problem).all() and np.isfinite(low).all()):
            assert outcome == 2
            assert found == np.inf
            assert (row == 0).all()
            continue
        assert outcome == 0
        assert found <= 1e-8
        present = np.diag(problem) > 0
        assert (row[~present] == 0).all()
        assert (row[present] >= low[present]).all()
        if present.any():
            assert violation(problem[np.ix_(present, present)], low[present], row[present]) <= 1e-8


CASES = [
    OpCase(
        "dual_cone",
        inputs=dual_cone_inputs,
        check=check_dual_cone,
        errors={
            **{name: ((bad, SQUARE), message) for name, (bad, message) in GRAM_ERRORS.items()},
            "lower-tasks": ((SQUARE, SQUARE[:, :1]), "lower has shape [2, 1], expected [..., M, K] where gram is"),
            "lower-batch": ((SQUARE, SQUARE[None]), "lower has shape [1, 2, 2], expected [..., M, K] where gram is"),
            "lower-vector": ((SQUARE, SQUARE[0]), "lower has shape [2], expected [..., M, K] where gram is"),
            "lower-dtype": ((SQUARE, SQUARE.float()), "lower has dtype torch.float32, expected torch.float64"),
        },
    )
]
