"""gram's row."""

import numpy as np
import torch

from op_cases.common import OpCase, grad_lists, list_errors, stacked, unit_roundoff


def check_gram(arguments, result):
    grads, num_tasks = arguments
    jacobian = stacked(grads, num_tasks)
    norms = np.sqrt((jacobian**2).sum(1))
    dtypes = {grad.dtype for grad in grads if grad.numel()}
    bound = 128 * max((unit_roundoff(dtype) for dtype in dtypes), default=0.0)
    error = np.abs(result.cpu().numpy() - jacobian @ jacobian.T)
    assert result.dtype == torch.float64
    assert (error <= bound * np.outer(norms, norms)).all()
    assert torch.equal(result, result.T)


CASES = [
    OpCase(
        "gram",
        inputs=grad_lists,
        check=check_gram,
        errors={**list_errors(2), "num-tasks": (([torch.ones(3)], 0), "num_tasks is 0, expected at least 1")},
    )
]
