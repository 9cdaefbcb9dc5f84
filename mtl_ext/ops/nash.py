"""The Nash bargaining solution of the tasks, and the equation it shares with FairGrad."""

import torch
from torch import Tensor

from mtl_ext.ops.kxk import PARETO_STATIONARY, SOLVED, solve_each, solver_fake
from mtl_ext.ops.min_norm import minimum_norm
from mtl_ext.ops.registry import define_operator

RESIDUAL = 1e-6
# The combination of the unit gradients has this squared length, relative to its largest coefficient, where the
# weights grow without bound.
STATIONARY = 1e-14


def alpha_fair(gram: Tensor, alpha: float) -> tuple[Tensor, Tensor, int]:
    """Solves ``G w = w^(-1/alpha)`` for one problem [K, K] without zero gradients, by damped Newton steps.

    In units in which the gradients have length 1: ``S x = b * x^(-1/alpha)`` with ``S = D^-1 G D^-1``,
    ``D = sqrt(diag G)``, ``d = D / sqrt(tr G)``, ``b = d^(1/alpha - 1)`` and ``x = d * w``.
    """
    lengths, trace = gram.diagonal().sqrt(), gram.trace()
    unit = gram / lengths / lengths[:, None]
    unit.fill_diagonal_(1.0)
    b = (lengths / trace.sqrt()) ** (1 / alpha - 1)
    x = (b / unit.abs().sum(1)) ** (alpha / (1 + alpha))
    for _ in range(int(60 * max(1.0, alpha)) + 1):
        products, targets = unit @ x, b * x ** (-1 / alpha)
        residual = (products / targets - 1).abs().max()
        rounding = 4 * len(gram) * torch.finfo(torch.float64).eps * x.max() / targets.min()
        if residual <= rounding.clamp_min(RESIDUAL):
            return x / lengths * trace ** (0.5 - alpha / (1 + alpha)), residual, SOLVED
        hessian = unit + (targets / (alpha * x)).diag()
        factor, singular = torch.linalg.cholesky_ex(hessian)
        if x @ products <= STATIONARY * x.max() ** 2 or singular > 0:
            break
        gradient = products - targets
        step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        length = _step_length(unit, b, x, step, gradient @ step, alpha)
        if length == 0:
            break
        x = x - length * step
    weights, _, _ = minimum_norm(gram)
    return weights, (weights @ (gram / trace) @ weights).clamp_min(0.0), PARETO_STATIONARY


def _step_length(unit: Tensor, b: Tensor, x: Tensor, step: Tensor, descent: Tensor, alpha: float) -> float:
    """1, halved until x stays positive and does not overshoot the minimum along the line; 0 if nothing does."""
    for halving in range(100):
        trial = x - step / 2**halving
        if (trial > 0).all() and -(unit @ trial - b * trial ** (-1 / alpha)) @ step <= 0.9 * descent:
            return 0.5**halving
    return 0.0


def nash_reference(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Damped Newton steps, problem by problem."""
    return solve_each("nash", gram, lambda problem: alpha_fair(problem, 1.0))


def nash_fake(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Result shapes of nash."""
    return solver_fake("nash", gram)


_nash = define_operator("nash", "(Tensor gram) -> (Tensor, Tensor, Tensor)", nash_reference, nash_fake)


@torch.no_grad()
def nash(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the Nash bargaining solution (Nash-MTL, Navon et al. 2022): ``G a = 1 / a`` with ``a > 0``.

    The combined gradient always has length ``sqrt(K)`` (K counting the tasks whose gradient is not zero). Multiplying a
    task's gradient by s divides its weight by s.

    Args:
        gram: [..., K, K], float64, symmetric positive semidefinite up to rounding; leading dimensions are a batch.

    Returns:
        weights [..., K] float64, positive; 0 for a task whose gradient is zero.
        certificate [...] float64: for status 0 the relative residual ``max_k |a_k (G a)_k - 1|``, for status 1
        ``w^T G w / tr G``.
        status [...] int32: 0 solved; 1 Pareto-stationary: there is no solution because the convex hull of the gradients
        contains 0 (up to rounding), and the weights are the point w of the simplex of minimum norm; 2 non-finite input
        (weights 0, certificate infinite).

    Raises:
        RuntimeError: wrong shape or dtype.
    """
    weights, certificate, status = _nash(gram)
    return weights, certificate, status
