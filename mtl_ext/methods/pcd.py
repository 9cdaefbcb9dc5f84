"""PCD: follow a primary task as far as the others still progress."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import check_num_tasks, check_range, chosen_tasks, task_indices
from mtl_ext.methods.grad_method import GradMethod


class PCD(GradMethod):
    """Priority-constrained descent (arXiv:2606.29521, 2026): nearest to a primary gradient such that all progress.

    With gradients normalised by a moving average of their squared norms, ``h_k = g_k / sqrt(v_k + 1e-8)`` (bias of v
    corrected), the primary's ``h_1`` and the others' ``h_j``: ``argmin_d ||d - h_1||^2 / 2`` subject to
    ``h_j^T d >= tau ||h_j||^2``, exactly; d is scaled to the norm of ``g_1``. Where no d meets the constraints (or
    only one whose distance to ``h_1`` is ``t^-1/2`` times its length or more, ``t = max(K eps, 1e-9)`` with the eps of
    the gradients' dtype) the result is ``g_1``; where ``g_1`` or d is 0, it is 0. TorchJD's primary task is the first.
    Because of 1e-8, the scale of the gradients matters where their squares are that small. There is no ``reduction``:
    the length is that of the primary gradient, however many tasks there are.

    Args:
        num_tasks: K.
        primary: name or index of the primary task; or a list of several, whose gradients are summed.
        tau: the share of progress along its own gradient that each other task is owed, in [0, 1].
        beta: how much of the average is kept, in [0, 1).
        weight_heads: see `GradMethod`.
        nonfinite: see `Method`.

    Attributes:
        squares: [K] float64, the average of the squared norms (of the primary tasks' sum, in the first one's place).
        steps: float64, steps done.
    """

    squares: Tensor
    steps: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | list[str | int] = 0,
        tau: float = 0.02,
        beta: float = 0.999,
        weight_heads: bool = False,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(weight_heads=weight_heads, nonfinite=nonfinite)
        check_range("num_tasks", num_tasks, 1)
        check_range("tau", tau, 0.0, 1.0)
        check_range("beta", beta, 0.0, 1.0, open_high=True)
        self.primary = chosen_tasks("primary", primary, num_tasks)
        self.tau = tau
        self.beta = beta
        self.register_buffer("squares", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.float64))

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        check_num_tasks(len(losses), len(self.squares))
        groups = self._groups(gradients.losses.keys).to(gram)
        gram = groups @ gram.where(usable == 1, 0.0) @ groups.T
        lengths = gram.diagonal()
        step = self.steps + 1
        squares = torch.zeros_like(self.squares)
        squares[: len(gram)] = self.beta * self.squares[: len(gram)] + (1 - self.beta) * lengths
        for buffer, value in ((self.squares, squares), (self.steps, step)):
            buffer.copy_(torch.where(usable == 1, value, buffer))
        scales = (self.squares[: len(gram)] / (1 - self.beta**step) + 1e-8).rsqrt()
        scaled = scales[:, None] * gram * scales
        weights = nearest_with_progress(scaled, self.tau, max(len(losses) * self.eps, 1e-9))
        square = weights @ scaled @ weights
        bound = 10 * self.eps * (weights.abs() @ scaled.diagonal().sqrt()).square()
        factor = torch.where(square > bound, (lengths[0] / square).sqrt(), 0.0)
        weights = torch.where(usable == 1, groups.T @ (factor * weights * scales), usable)
        gradients.combine(weights)
        return weights

    def _groups(self, keys: list[str | int]) -> Tensor:
        """[M, K]: which tasks are summed, the primary ones first."""
        chosen = task_indices("primary", self.primary, keys)
        rows = torch.eye(len(keys), dtype=torch.float64)
        others = [k for k in range(len(keys)) if k not in chosen]
        return torch.cat([rows[chosen].sum(0, keepdim=True), rows[others]])


def nearest_with_progress(gram: Tensor, tau: float, tolerance: float) -> Tensor:
    """Weights of ``argmin_d ||d - h_0||`` subject to ``h_j^T d >= tau ||h_j||^2`` for j > 0.

    A least-distance problem, which is one of nonnegative least squares (Lawson & Hanson 1974, chapter 23): with unit
    vectors e_j and what each is owed, b_j, minimise ``||sum_j u_j e_j||^2 + (b^T u - 1)^2`` over ``u >= 0``.

    Args:
        gram: [M, M] float64, of the h_j. Zero ones are left out.
        tau: see `PCD`.
        tolerance: of the squared residual that tells whether the constraints can be met.

    Returns:
        [M] float64 on the matrix's device, the first 1 and the others at least 0; (1, 0, ...) where the constraints
        cannot be met, and 0 where h_0 is 0.
    """
    norms = gram.diagonal().sqrt()
    inverse = torch.where(norms > 0, 1 / norms, 0.0)
    cosines = (inverse[:, None] * gram * inverse)[1:, 1:]
    owed = torch.where(norms[1:] > 0, tau * norms[1:] * inverse[0] - inverse[1:] * gram[1:, 0] * inverse[0], 0.0)
    border = torch.cat([gram.new_ones(1), -owed])
    system = border[:, None] * border
    system[1:, 1:] += cosines
    lower = torch.zeros_like(border).index_fill(0, border.new_zeros(1, dtype=torch.long), 1.0)
    weights, _, _ = ops.dual_cone(system, lower[None])
    factors = weights[0, 1:]
    residual = 1 - owed @ factors
    multipliers = torch.where(residual > tolerance, factors / residual, 0.0) * norms[0] * inverse[1:]
    return torch.cat([(norms[:1] > 0).to(gram.dtype), multipliers])
