"""combine's and combine_'s rows."""

import numpy as np
import torch

from op_cases.common import OpCase, generator, grad_lists, list_errors, list_grads, unit_roundoff


def task_weights(num_tasks, device, seed=7):
    weights = torch.randn(num_tasks, dtype=torch.float64, generator=generator(seed))
    weights[num_tasks // 2] = 0.0 if num_tasks > 2 else weights[num_tasks // 2]
    return weights.to(device)


def param_weights(num_params, num_tasks, device, seed=11):
    """A row for every parameter, each with zeros of its own."""
    weights = torch.randn(num_params, num_tasks, dtype=torch.float64, generator=generator(seed))
    unread = torch.arange(num_params)[:, None] % 5 + 1 == torch.arange(num_tasks)
    return weights.masked_fill(unread, 0.0).to(device)


def combine_inputs(seed, device):
    cases = {}
    for name, (grads, num_tasks) in grad_lists(seed, device).items():
        cases[name] = (grads, task_weights(num_tasks, device))
        cases[f"{name}-rows"] = (grads, param_weights(len(grads) // num_tasks, num_tasks, device))
    rows = param_weights(7, 3, device).T.contiguous().T
    cases["transposed-rows"] = (list_grads([(9,)] * 7, 3, device=device, seed=seed), rows)
    poisoned = list_grads([(5, 7)], 3, device=device, seed=seed)
    poisoned[1][0, 0] = torch.nan
    cases["weight-zero-is-not-read"] = (poisoned, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64, device=device))
    read_elsewhere = list_grads([(5, 7), (8,)], 2, device=device, seed=seed)
    read_elsewhere[2][0, 0] = torch.nan
    rows = torch.tensor([[1.0, 0.0], [2.0, 3.0]], dtype=torch.float64, device=device)
    cases["weight-zero-in-a-row"] = (read_elsewhere, rows)
    cases["all-weights-zero"] = (poisoned, torch.zeros(3, dtype=torch.float64, device=device))
    return cases


def check_combined(grads, weights, result, start=None):
    """Each output within the rounding of K + 2 sequential operations of the exact sum (plus `start`)."""
    num_tasks = weights.shape[-1]
    num_params = len(grads) // num_tasks
    rows = weights.expand(num_params, num_tasks).cpu().numpy().astype(np.longdouble)
    assert len(result) == num_params
    for param, values in enumerate(rows):
        column = grads[param::num_params]
        present = [k for k in range(num_tasks) if column[k].numel() > 0 and values[k] != 0]
        if all(grad.numel() == 0 for grad in column):
            assert result[param].numel() == 0 or (start is not None and torch.equal(result[param], start[param]))
            continue
        like = next(grad for grad in column if grad.numel() > 0)
        terms = [values[k] * column[k].cpu().double().numpy().astype(np.longdouble) for k in present]
        if start is not None:
            terms.append(start[param].cpu().double().numpy().astype(np.longdouble))
        exact = sum(terms, np.zeros(like.shape, np.longdouble))
        magnitude = sum((np.abs(term) for term in terms), np.zeros(like.shape, np.longdouble))
        bound = (num_tasks + 2) * unit_roundoff(like.dtype) * magnitude
        if like.dtype in (torch.bfloat16, torch.float16):
            bound = (
                bound + torch.finfo(like.dtype).eps / 2 * np.abs(exact) * 1.01 + torch.finfo(like.dtype).smallest_normal
            )
        assert result[param].shape == like.shape
        assert result[param].dtype == like.dtype
        assert (np.abs(result[param].cpu().double().numpy() - exact) <= bound).all()


def combine_into_inputs(seed, device):
    cases = {}
    for name, (grads, weights) in combine_inputs(seed, device).items():
        num_params = len(grads) // weights.shape[-1]
        columns = [grads[param::num_params] for param in range(num_params)]
        likes = [next((grad for grad in column if grad.numel()), column[0]) for column in columns]
        for accumulate in (False, True):
            out = [torch.randn(like.shape, generator=generator(seed)).to(like.dtype).to(device) for like in likes]
            cases[f"{name}{'-accumulate' if accumulate else ''}"] = (out, grads, weights, accumulate)
    transposed_out = [torch.randn(7, 5, device=device).mT]
    cases["transposed-out"] = (transposed_out, list_grads([(5, 7)], 3, device=device), task_weights(3, device), True)
    return cases


def combine_errors(*, in_place):
    grads = list_grads([(3, 4), (5,)], 2)
    weights = torch.ones(2, dtype=torch.float64)
    out = [grad.clone() for grad in grads[:2]]
    errors = {
        name: ((out, arguments[0], arguments[1], False) if in_place else arguments, message)
        for name, (arguments, message) in list_errors(weights).items()
    }
    bad_weights = {
        "weights-dtype": (weights.float(), "weights has dtype torch.float32, expected torch.float64"),
        "weights-dimensions": (weights[None, None], "weights has shape [1, 1, 2], expected [K] or [P, K] with K at"),
        "weights-rows": (
            weights[None],
            "weights has shape [1, 2], expected [K], or [P, K] with P = len(grads) / K where",
        ),
        "no-weights": (weights[:0], "weights has shape [0], expected [K] or [P, K] with K at least 1"),
    }
    for name, (bad, message) in bad_weights.items():
        errors[name] = ((out, grads, bad, False) if in_place else (grads, bad), message)
    if in_place:
        errors["out-length"] = (
            (out[:1], grads, weights, False),
            "len(out) is 1, expected 2 = len(grads) / K",
        )
        errors["out-shape"] = (([out[0].T, out[1]], grads, weights, False), "out[0] has shape [4, 3], expected [3, 4]")
        errors["out-dtype"] = (([out[0].double(), out[1]], grads, weights, False), "out[0] has dtype torch.float64")
        overlapping = torch.ones(1).expand(3, 4)
        errors["out-strides"] = (
            ([overlapping, out[1]], grads, weights, False),
            "out[0] has strides [0, 0], expected a dense",
        )
    return errors


CASES = [
    OpCase(
        "combine",
        inputs=combine_inputs,
        check=lambda arguments, result: check_combined(*arguments, result),
        errors=combine_errors(in_place=False),
    ),
    OpCase(
        "combine_",
        inputs=combine_into_inputs,
        check=lambda arguments, result: check_combined(*arguments[1:3], result, arguments[0] if arguments[3] else None),
        errors=combine_errors(in_place=True),
        mutates=1,
    ),
]
