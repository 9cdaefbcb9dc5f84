"""saliency_entropy's and saliency_entropy_map's rows."""

import math

import numpy as np
import torch

from op_cases.common import DTYPES, OpCase, grad_lists, list_errors, list_grads, unit_roundoff


def entropies(column):
    """Of one parameter's positions, in extended precision, and where all tasks are zero."""
    values = np.abs(np.stack([grad.cpu().double().numpy().astype(np.longdouble) for grad in column if grad.numel()]))
    total = values.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = values / np.where(total == 0, 1, total)
        return -np.where(shares == 0, 0, shares * np.log(shares)).sum(0), total == 0


def bound(dtype, num_tasks):
    return (num_tasks + 4) * unit_roundoff(dtype) * max(1.0, math.log(num_tasks))


def check_map(grads, num_tasks, result):
    num_params = len(grads) // num_tasks
    assert len(result) == num_params
    for param, found in enumerate(result):
        column = grads[param::num_params]
        like = next((grad for grad in column if grad.numel()), column[0])
        assert found.shape == like.shape
        assert found.dtype == (torch.float64 if like.dtype == torch.float64 else torch.float32)
        if like.numel() == 0:
            continue
        expected, _ = entropies(column)
        values = found.cpu().double().numpy()
        nan = np.isnan(expected)
        assert (np.isnan(values) == nan).all()
        assert (np.abs(values - expected)[~nan] <= bound(like.dtype, num_tasks)).all()
        alone = np.sum([grad.cpu().double().numpy() != 0 for grad in column if grad.numel()], 0) <= 1
        assert (values[alone & ~nan] == 0).all()


def check_mean(grads, num_tasks, result):
    entropy, zero_columns = result
    num_params = len(grads) // num_tasks
    columns = [grads[param::num_params] for param in range(num_params)]
    found = [entropies(column) for column in columns if any(grad.numel() for grad in column)]
    expected = np.concatenate([values.reshape(-1) for values, _ in found] or [np.zeros(0)])
    assert entropy.dtype == torch.float64
    assert entropy.shape == zero_columns.shape == ()
    assert zero_columns.item() == sum(zeros.sum() for _, zeros in found)
    if expected.size == 0 or np.isnan(expected).any():
        assert entropy.isnan()
    else:
        dtypes = {grad.dtype for grad in grads if grad.numel()}
        of_sum = expected.size * 2.0**-53 * expected.mean()
        assert abs(entropy.item() - expected.mean()) <= max(bound(dtype, num_tasks) for dtype in dtypes) + of_sum


def saliency_inputs(seed, device):
    cases = dict(grad_lists(seed, device))
    for dtype in DTYPES:
        name = str(dtype)[6:]
        zeros = list_grads([(5, 67), (40,)], 3, dtype, device, seed)
        for index, grad in enumerate(zeros):
            grad.view(-1)[index % 2 :: 3] = 0
            grad.view(-1)[:9] = 0
        cases[f"zeros-{name}-K3"] = (zeros, 3)
        info = torch.finfo(dtype)
        for kind, value in (("subnormal", info.smallest_normal * info.eps), ("largest", info.max)):
            factors = (1.0, 1.0, 0.5, 0.25) if kind == "largest" else (1.0, 3.0, 0.0, 7.0)
            column = [torch.full((77,), value * factor, dtype=torch.float64).to(dtype) for factor in factors]
            cases[f"{kind}-{name}-K4"] = ([tensor.to(device) for tensor in column], 4)
        one_hot = list_grads([(259,)], 3, dtype, device, seed)
        one_hot[0].zero_()
        one_hot[2].zero_()
        cases[f"one-hot-{name}-K3"] = (one_hot, 3)
        broken = list_grads([(259,)], 3, dtype, device, seed)
        broken[1][7], broken[2][150], broken[0][258] = torch.inf, torch.nan, -torch.inf
        cases[f"non-finite-{name}-K3"] = (broken, 3)
    cases["no-positions-K2"] = ([torch.empty(0, device=device)] * 2, 2)
    close = torch.linspace(0, 1, 4099, dtype=torch.float64).to(device)
    for dtype in (torch.float64, torch.float32):
        cases[f"all-shares-{str(dtype)[6:]}-K2"] = ([close.to(dtype), (1 - close).to(dtype)], 2)
    return cases


ERRORS = {**list_errors(2), "num-tasks": (([torch.ones(3)], 0), "num_tasks is 0, expected at least 1")}

CASES = [
    OpCase(
        "saliency_entropy",
        inputs=saliency_inputs,
        check=lambda arguments, result: check_mean(*arguments, result),
        errors=ERRORS,
    ),
    OpCase(
        "saliency_entropy_map",
        inputs=saliency_inputs,
        check=lambda arguments, result: check_map(*arguments, result),
        errors=ERRORS,
    ),
]
