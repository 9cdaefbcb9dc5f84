"""gradvac's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase, generator, grams, random_gram
from op_cases.pcgrad import ORDER, projection_order


def targets(shape, seed, device):
    return (0.9 * torch.rand(shape, dtype=torch.float64, generator=generator(seed)) - 0.2).to(device)


def gradvac_inputs(seed, device):
    cases = {}
    for name, gram in grams(seed, device).items():
        order = projection_order(len(gram), seed, device)
        cases[name] = (gram, order, torch.zeros_like(gram), 0.5)
        cases[f"{name}-later"] = (gram, order, targets(gram.shape, seed, device), 1e-2)
    batch = torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4)
    orders = torch.stack([projection_order(4, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 3)
    cases["batch"] = (batch, orders[0, 0], targets(batch.shape, seed, device), 0.5)
    cases["batch-own-orders"] = (batch, orders, targets(batch.shape, seed, device), 0.5)
    cases["empty-batch"] = (batch[:0], orders[0, 0], batch[:0], 0.5)
    broken = batch.clone()
    broken[1, 0, 2, 2] = torch.nan
    cases["non-finite"] = (broken, orders, targets(batch.shape, seed, device), 0.5)
    opposite = torch.tensor([[4.0, -2.0, 1.0], [-2.0, 1.0, -0.5], [1.0, -0.5, 2.0]], dtype=torch.float64, device=device)
    cases["opposite"] = (opposite, torch.tensor([[1, 2], [0, 2], [1, 0]], device=device), 0 * opposite, 0.5)
    ones = torch.ones(3, 3, dtype=torch.float64, device=device)
    cases["wanted-parallel"] = (opposite, projection_order(3, seed, device), ones, 0.5)
    cases["order-out-of-range"] = (
        random_gram(3, 2, seed, device),
        torch.tensor([[0, 9], [-4, 2], [1, 0]], device=device),
        0 * ones,
        0.5,
    )
    return cases


def corrected(gram, i, order, target, beta):
    """One task's corrected gradient, in extended precision; the rule of Wang et al. 2021 on coefficients."""
    num_tasks = len(gram)
    row = np.zeros(num_tasks, np.longdouble)
    row[i] = gram[i, i] > 0
    lengths = np.sqrt(np.diag(gram))
    for j in order:
        vanished = row @ gram @ row <= num_tasks * 2.0**-52 * (abs(row) @ lengths) ** 2
        if not 0 <= j < num_tasks or j == i or gram[j, j] <= 0 or vanished:
            continue
        norm = np.sqrt(row @ gram @ row)
        phi, wanted = np.clip(gram[j] @ row / (norm * lengths[j]), -1, 1), target[j]
        sine, wanted_sine = np.sqrt(1 - phi**2), np.sqrt(max(0, 1 - wanted**2))
        if phi < wanted and wanted_sine**2 > 1e-12:
            row[j] += norm * (wanted * sine - phi * wanted_sine) / (lengths[j] * wanted_sine)
        target[j] = (1 - beta) * wanted + beta * phi
    return row


def check_gradvac(arguments, result):
    gram, order, target = (argument.cpu().numpy() for argument in arguments[:3])
    weights, new_target = (value.cpu().numpy() for value in result)
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert new_target.shape == gram.shape
    orders = np.broadcast_to(order, (*gram.shape[:-1], num_tasks - 1))
    for index in np.ndindex(gram.shape[:-2]):
        if not np.isfinite(gram[index]).all():
            assert np.isnan(weights[index]).all()
            np.testing.assert_array_equal(new_target[index], target[index])
            continue
        problem, wanted = gram[index].astype(np.longdouble), target[index].astype(np.longdouble)
        rows = [corrected(problem, i, orders[index][i], wanted[i], arguments[3]) for i in range(num_tasks)]
        size = np.abs(rows).sum(0).max()
        np.testing.assert_allclose(weights[index], np.sum(rows, 0), rtol=1e-9, atol=1e-9 * size)
        np.testing.assert_allclose(new_target[index], wanted, rtol=1e-9, atol=1e-9)


CASES = [
    OpCase(
        "gradvac",
        inputs=gradvac_inputs,
        check=check_gradvac,
        errors={
            **{name: ((bad, ORDER, SQUARE, 0.5), message) for name, (bad, message) in GRAM_ERRORS.items()},
            "order-shape": ((SQUARE, ORDER.T, SQUARE, 0.5), "order has shape [1, 2], expected [K, K - 1] = [2, 1]"),
            "orders-shape": (
                (torch.stack([SQUARE] * 3), torch.stack([ORDER] * 2), torch.stack([SQUARE] * 3), 0.5),
                "order has shape [2, 2, 1], expected [K, K - 1] = [2, 1] or [..., K, K - 1] = [3, 2, 1]",
            ),
            "order-dtype": ((SQUARE, ORDER.int(), SQUARE, 0.5), "order has dtype torch.int32, expected torch.int64"),
            "target-shape": ((SQUARE, ORDER, SQUARE[0], 0.5), "target has shape [2], expected [2, 2] as gram"),
            "target-dtype": (
                (SQUARE, ORDER, SQUARE.float(), 0.5),
                "target has dtype torch.float32, expected torch.float64 as gram",
            ),
        },
    )
]
