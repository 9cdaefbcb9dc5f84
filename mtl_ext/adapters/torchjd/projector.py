"""Projection onto the dual cone, the solver of UPGrad and DualProj."""

import torch
from torch import Tensor
from torchjd.linalg import DualConeProjector

from mtl_ext import ops
from mtl_ext.adapters.torchjd.problem import solution, to_solve


def projection_weights(U: Tensor, G: Tensor, norm_eps: float, reg_eps: float) -> Tensor:
    """The weights of `DualConeProjector.__call__`, with TorchJD's two adjustments of G.

    Args:
        U: [..., m], the vectors to project.
        G: [m, m].
        norm_eps: below this trace G counts as 0, so that the weights are U; 0: never.
        reg_eps: added to the diagonal of G divided by its trace.

    Returns:
        [..., m] in G's dtype, on its device; NaN where G or U is not finite.
    """
    if G.shape[0] == 0:
        return U.to(G)
    problem = to_solve(G)
    lower = U.to(problem).reshape(-1, G.shape[0])
    trace = problem.diagonal().sum()
    if norm_eps > 0:
        problem = torch.where(trace < norm_eps, 0.0, problem)
    problem = problem + reg_eps * trace * torch.eye(G.shape[0], dtype=problem.dtype, device=problem.device)
    # A task without a gradient has weight 0 in ops.dual_cone; TorchJD keeps its lower bound, and so do we.
    weights = torch.maximum(solution(ops.dual_cone(problem, lower)), lower)
    return weights.reshape(U.shape).to(G)


class ConeProjector(DualConeProjector):
    """TorchJD's `DualConeProjector` on `ops.dual_cone`, exact and scale-free by default.

    Usable without any patch: ``torchjd.aggregation.UPGrad(projector=ConeProjector())``.

    Peers differ: `QuadprogProjector` adds ``reg_eps = 1e-4`` to the diagonal of G / tr G (which changes the result by
    up to a fifth), takes G for 0 where its trace is below ``norm_eps = 1e-4`` (UPGrad and DualProj are then the mean of
    the gradients, whatever their conflicts), raises on bfloat16, and raises or returns NaN on non-finite input (here:
    NaN). Pass TorchJD's values of both for its results.

    Args:
        norm_eps: the trace below which G counts as 0.
        reg_eps: added to the diagonal of G / tr G.

    Raises:
        ValueError: one of them is negative.
    """

    def __init__(self, *, norm_eps: float = 0.0, reg_eps: float = 0.0) -> None:
        super().__init__()
        self.norm_eps = norm_eps
        self.reg_eps = reg_eps

    @property
    def norm_eps(self) -> float:
        """The trace below which G counts as 0."""
        return self._norm_eps

    @norm_eps.setter
    def norm_eps(self, value: float) -> None:
        self._norm_eps = checked("norm_eps", value)

    @property
    def reg_eps(self) -> float:
        """What is added to the diagonal of G / tr G."""
        return self._reg_eps

    @reg_eps.setter
    def reg_eps(self, value: float) -> None:
        self._reg_eps = checked("reg_eps", value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(norm_eps={self.norm_eps}, reg_eps={self.reg_eps})"

    @torch.no_grad()
    def __call__(self, U: Tensor, G: Tensor) -> Tensor:
        """Weights [..., m] of the projections of ``J^T u`` for each u of U [..., m], given ``G = J J^T`` [m, m]."""
        return projection_weights(U, G, self.norm_eps, self.reg_eps)


def checked(name: str, value: float) -> float:
    """A parameter that must not be negative."""
    if value < 0.0:
        raise ValueError(f"{name} must be non-negative, but got {value}.")
    return value
