"""gram's row."""

import numpy as np
import torch

from op_cases.common import OpCase, grad_lists, list_errors, list_grads, stacked, unit_roundoff


def gram_inputs(seed, device):
    """Every list whole, and grouped: by tensor, two groups in turn, and neighbours together but for an empty group."""
    cases = {}
    for number, (name, (grads, num_tasks)) in enumerate(grad_lists(seed, device).items()):
        params = range(len(grads) // num_tasks)
        cases[name] = (grads, num_tasks, None)
        groupings = (list(params), [p % 2 for p in params], [p // 2 + (p > 1) for p in params])
        groups = groupings[number % 3]
        cases[f"{name}-grouped"] = (grads, num_tasks, groups if max(groups) < len(groups) else list(params))
    many = list_grads([(300,)] * 200, 2, device=device, seed=seed)
    cases["two-hundred-groups-K2"] = (many, 2, list(range(200)))
    return cases


def check_matrix(grads, num_tasks, found):
    jacobian = stacked(grads, num_tasks)
    norms = np.sqrt((jacobian**2).sum(1))
    # Float64 sums are as long as a chunk, and constant data adds up their errors; float32 ones are cut short.
    lengths = {grad.dtype: 1024 if grad.dtype == torch.float64 else 128 for grad in grads if grad.numel()}
    bound = max((length * unit_roundoff(dtype) for dtype, length in lengths.items()), default=0.0)
    error = np.abs(found - jacobian @ jacobian.T)
    assert (error <= bound * np.outer(norms, norms)).all()


def check_gram(arguments, result):
    grads, num_tasks, grouping = arguments
    num_params = len(grads) // num_tasks
    groups = np.array(grouping or [0] * num_params)
    assert result.dtype == torch.float64
    assert result.shape == (*([groups.max() + 1] if grouping else []), num_tasks, num_tasks)
    assert torch.equal(result, result.mT)
    for group, found in enumerate(result.cpu().numpy().reshape(-1, num_tasks, num_tasks)):
        members = np.flatnonzero(groups == group)
        if members.size:
            column = [grads[k * num_params + p] for k in range(num_tasks) for p in members]
            check_matrix(column, num_tasks, found)
        else:
            assert (found == 0).all()


CASES = [
    OpCase(
        "gram",
        inputs=gram_inputs,
        check=check_gram,
        errors={
            **list_errors(2, None),
            "num-tasks": (([torch.ones(3)], 0, None), "num_tasks is 0, expected at least 1"),
            "groups-length": (([torch.ones(3)] * 4, 2, [0]), "len(groups) is 1, expected 2 = len(grads) / K"),
            "group-negative": (([torch.ones(3)] * 4, 2, [0, -1]), "groups[1] is -1, expected 0 to 1 (at most a group"),
            "group-too-large": (([torch.ones(3)] * 4, 2, [2, 0]), "groups[0] is 2, expected 0 to 1 (at most a group"),
        },
    )
]
