"""What the K-by-K solvers share: gram [..., K, K] -> weights [..., K], certificate [...], status [...]."""

from collections.abc import Callable
from typing import Any

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


def solver_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    """Keeps a solver's problem and answer for its derivative; only the weights have one."""
    gram, *ctx.options = inputs
    weights, certificate, status = output
    ctx.save_for_backward(gram, weights, status)
    ctx.mark_non_differentiable(certificate, status)


def solved_problem(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a solver's derivative starts from: Gram matrices [..., K, K], weights [..., K], cotangents [..., K].

    Problems that were not solved get a unit matrix and cotangent 0, so that they contribute nothing.
    """
    gram, weights, status = ctx.saved_tensors
    solved = status == SOLVED
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return gram.where(solved[..., None, None], unit), weights, cotangent.where(solved[..., None], 0.0)


def symmetric_product(a: Tensor, b: Tensor) -> Tensor:
    """``(a b^T + b a^T) / 2`` over the last dimension: the cotangent of a symmetric matrix G in ``a^T G b``."""
    product = a[..., :, None] * b[..., None, :]
    return (product + product.mT) / 2
