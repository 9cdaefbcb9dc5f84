"""What the K-by-K solvers share: gram [..., K, K] -> weights [..., K], certificate [...], status [...]."""

from collections.abc import Callable

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_gram

SOLVED, PARETO_STATIONARY, NON_FINITE = 0, 1, 2

# The Gram matrix [k, k] of the tasks whose gradient is not zero -> their weights [k], the certificate and the status.
Solve = Callable[[Tensor], tuple[Tensor, Tensor, int]]


def solve_each(op: str, gram: Tensor, solve: Solve) -> tuple[Tensor, Tensor, Tensor]:
    """A solver's reference: problem by problem, without the tasks whose gradient is zero (their weight is 0)."""
    check_gram(op, gram, batched=True)
    batch, num_tasks = gram.shape[:-2], gram.shape[-1]
    problems = gram.reshape(batch.numel(), num_tasks, num_tasks)
    weights = gram.new_zeros(len(problems), num_tasks)
    certificate = gram.new_zeros(len(problems))
    status = gram.new_full((len(problems),), SOLVED, dtype=torch.int32)
    for index, problem in enumerate(problems):
        if not problem.isfinite().all():
            certificate[index], status[index] = torch.inf, NON_FINITE
            continue
        present = (problem.diagonal() > 0).nonzero().flatten()
        if present.numel() > 0:
            solution, certificate[index], status[index] = solve(problem[present[:, None], present])
            weights[index, present] = solution
    return weights.reshape(*batch, num_tasks), certificate.reshape(batch), status.reshape(batch)


def solver_fake(op: str, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of a solver."""
    check_gram(op, gram, batched=True)
    batch = gram.shape[:-2]
    return gram.new_empty(gram.shape[:-1]), gram.new_empty(batch), gram.new_empty(batch, dtype=torch.int32)
