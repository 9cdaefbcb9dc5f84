"""Between TorchJD's matrices and the operators' lists: rows, Gram matrices, weights."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.ops.checks import SUPPORTED_DTYPES

# The CUDA solvers take this many tasks; larger problems are solved on the CPU, as TorchJD solves all of them.
MAX_CUDA_TASKS = 64

# The list operators take this many on CUDA; more rows than that are TorchJD's own business.
MAX_ROWS = 2048

NON_FINITE = 2


def has_operators(matrices: Sequence[Tensor]) -> bool:
    """Whether the operators take these Jacobians [m, ...]: rows, but not too many; one device, a supported dtype."""
    first = matrices[0]
    return 0 < first.shape[0] <= MAX_ROWS and all(
        matrix.dtype in SUPPORTED_DTYPES and matrix.layout == torch.strided and matrix.device == first.device
        for matrix in matrices
    )


def task_major(jacobians: Sequence[Tensor]) -> list[Tensor]:
    """Views of P Jacobians [m, ...] as the operators' list of m * P gradients."""
    columns = [jacobian.unbind(0) for jacobian in jacobians]
    return [column[task] for task in range(jacobians[0].shape[0]) for column in columns]


def common_dtype(jacobians: Sequence[Tensor]) -> torch.dtype:
    """The dtype that a concatenation of the Jacobians would have."""
    return functools.reduce(torch.promote_types, (jacobian.dtype for jacobian in jacobians))


def weights_dtype(jacobians: Sequence[Tensor]) -> torch.dtype:
    """The dtype of Gram matrix and weights: the Jacobians' common one, float32 for half precision."""
    return torch.promote_types(common_dtype(jacobians), torch.float32)


def gramian_of(matrix: Tensor) -> Tensor:
    """``J J^T`` of a Jacobian [m, n] in its own dtype, float32 for half precision; products as in `ops.gram`."""
    if not has_operators([matrix]):
        return matrix @ matrix.T
    return ops.gram(list(matrix.unbind(0)), matrix.shape[0]).to(weights_dtype([matrix]))


def combine_rows(matrix: Tensor, weights: Tensor) -> Tensor:
    """``weights @ J`` in J's dtype, also with weights of a wider one."""
    if weights.dtype == matrix.dtype or not has_operators([matrix]):
        return weights @ matrix
    return ops.combine(list(matrix.unbind(0)), weights.to(torch.float64))[0]


def to_solve(gramian: Tensor) -> Tensor:
    """The Gram matrix as the solvers take it: float64, on the CPU where it is too large for a CUDA kernel."""
    too_large = gramian.device.type == "cuda" and gramian.shape[-1] > MAX_CUDA_TASKS
    return gramian.to(device="cpu" if too_large else gramian.device, dtype=torch.float64)


def solution(answer: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The weights of a solver's answer: 0 where there is no solution (Pareto-stationary), NaN on non-finite input."""
    weights, _, status = answer
    status = status[..., None]
    return torch.where(status == 0, weights, torch.where(status == NON_FINITE, torch.nan, 0.0))
