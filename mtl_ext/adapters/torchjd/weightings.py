"""TorchJD's weightings with an operator as their `forward`. Everything else is inherited.

Each takes a Gram matrix [m, m] and returns weights [m] in its dtype and on its device. Where TorchJD raises or returns
NaN on non-finite input, these return NaN, without a host synchronisation.
"""

from collections.abc import Callable
from typing import cast

import torch
import torchjd.aggregation as peer
from torch import Tensor
from torchjd.aggregation._nash_mtl import _NashMTLWeighting
from torchjd.linalg import DualConeProjector

from mtl_ext import ops
from mtl_ext.adapters.torchjd.problem import gramian_of, solution, to_solve, weights_dtype
from mtl_ext.adapters.torchjd.projector import ConeProjector

# TorchJD's ridge: part of its UPGrad and DualProj, unlike the absolute cut-off beside it.
REG_EPS = 1e-4

# As TorchJD has it, for parameters that the operators do not take.
_fairgrad_by_torchjd: Callable[..., Tensor] = peer.FairGradWeighting.forward


class PCGradWeighting(peer.PCGradWeighting):
    """Weights of `PCGrad`. Draws m times ``randperm(m)`` from the default generator, as TorchJD does."""

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]."""
        num_tasks = gramian.shape[0]
        if num_tasks == 0:
            return gramian.diagonal()
        draws = torch.stack([torch.randperm(num_tasks) for _ in range(num_tasks)])
        order = draws[draws != torch.arange(num_tasks)[:, None]].reshape(num_tasks, num_tasks - 1)
        problem = to_solve(gramian)
        return ops.pcgrad(problem, order.to(problem.device)).to(gramian)


class GradVacWeighting(peer.GradVacWeighting):
    """Weights of `GradVac`. Draws m times ``randperm(m - 1)`` from the default generator, as TorchJD does.

    Peers differ: TorchJD adds ``eps`` to the denominators, so that its weights depend on the scale of the gradients,
    and turns gradients that stay parallel by any amount; ``eps`` is not used here (see `mtl_ext.ops.gradvac`).
    """

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]; moves the targets."""
        num_tasks = gramian.shape[0]
        self._ensure_state(num_tasks, gramian.dtype)
        if num_tasks == 0:
            return gramian.diagonal()
        draws = torch.stack([torch.randperm(num_tasks - 1) for _ in range(num_tasks)])
        order = draws + (draws >= torch.arange(num_tasks)[:, None])
        problem = to_solve(gramian)
        target = cast(Tensor, self._phi_t).to(problem)
        weights, target = ops.gradvac(problem, order.to(problem.device), target, self.beta)
        self.register_buffer("_phi_t", target)
        return weights.to(gramian)


class MGDAWeighting(peer.MGDAWeighting):
    """Weights of `MGDA`: the exact ones.

    Peers differ: TorchJD runs Frank-Wolfe for ``max_iters`` steps or until one is shorter than ``epsilon``; its
    combined gradient is longer than the shortest one. Both parameters are kept and not used.
    """

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]."""
        return solution(ops.min_norm(to_solve(gramian))).to(gramian) if len(gramian) else gramian.diagonal()


class CAGradWeighting(peer.CAGradWeighting):
    """Weights of `CAGrad`.

    Peers differ: TorchJD's ``norm_eps`` is 1e-4, below which the trace of G counts as 0 and so does the length of g_w
    relative to its root. The weights are then 0: small gradients have none. Pass 1e-4 for that.

    Args:
        c: radius of the ball relative to the mean gradient.
        norm_eps: TorchJD's cut-off; 0: only what rounding cannot tell from 0.
    """

    def __init__(self, c: float, norm_eps: float = 0.0) -> None:
        super().__init__(c=c, norm_eps=norm_eps)

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]; 0 at Pareto-stationary points."""
        return cagrad_weights(gramian, self.c, self.norm_eps)


def cagrad_weights(gramian: Tensor, c: float, norm_eps: float) -> Tensor:
    """CAGrad's weights [m] of a Gram matrix [m, m], with TorchJD's cut-off where it is not 0."""
    if len(gramian) == 0:
        return gramian.diagonal()
    problem = to_solve(gramian)
    weights = solution(ops.cagrad(problem, c, torch.finfo(gramian.dtype).eps))
    if norm_eps > 0:
        trace = problem.diagonal().sum()
        # What the weights have beyond the mean is c |g_0| / |g_w| times weights that sum to 1.
        mean_length = problem.mean().clamp_min(0.0).sqrt()
        cut = norm_eps * (weights.sum() - 1.0)
        weights = torch.where((trace < norm_eps) | (c * mean_length < cut * trace.sqrt()), 0.0, weights)
    return weights.to(gramian)


class AlignedMTLWeighting(peer.AlignedMTLWeighting):
    """Weights of `AlignedMTL`. Eigenvalues up to m eps of the largest one count as 0, eps that of G's dtype."""

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m].

        Raises:
            ValueError: an unknown scale mode.
        """
        if self.scale_mode not in ("min", "median", "rmse"):
            raise ValueError(f"Invalid scale_mode={self.scale_mode!r}. Expected 'min', 'median', or 'rmse'.")
        preference = self.weighting(gramian)
        problem, eps = to_solve(gramian), torch.finfo(gramian.dtype).eps
        answer = ops.aligned(problem, scale_mode=self.scale_mode, eps=eps, preference=preference.to(problem))
        return solution(answer).to(gramian)


class IMTLGWeighting(peer.IMTLGWeighting):
    """Weights of `IMTLG`. Eigenvalues up to m eps of the largest one count as 0, eps that of G's dtype.

    Peers differ: TorchJD takes weights whose sum is below an absolute 1e-12 for 0.
    """

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]; 0 where they would sum to 0."""
        if len(gramian) == 0:
            return gramian.diagonal()
        return solution(ops.imtl_g(to_solve(gramian), torch.finfo(gramian.dtype).eps)).to(gramian)


class FairGradWeighting(peer.FairGradWeighting):
    """Weights of `FairGrad`: those that solve ``G w = w^(-1/alpha)``.

    Peers differ: TorchJD hands the equation to a general least-squares solver and takes what it returns after
    ``max_iters`` steps, solution or not. ``max_iters`` is kept and not used. ``alpha <= 0`` is TorchJD's own code.
    """

    def forward(self, gramian: Tensor, /) -> Tensor:
        """Weights [m] of a Gram matrix [m, m]; 0 where the equation has no solution."""
        if self.alpha <= 0 or len(gramian) == 0:
            return _fairgrad_by_torchjd(self, gramian)
        return solution(ops.fairgrad(to_solve(gramian), self.alpha)).to(gramian)


class UPGradWeighting(peer.UPGradWeighting):
    """Weights of `UPGrad`, whose projector is by default a `ConeProjector` with TorchJD's ridge and no cut-off."""

    def __init__(self, pref_vector: Tensor | None = None, projector: DualConeProjector | None = None) -> None:
        super().__init__(pref_vector, projector=projector or ConeProjector(reg_eps=REG_EPS))


class DualProjWeighting(peer.DualProjWeighting):
    """Weights of `DualProj`, whose projector is by default a `ConeProjector` with TorchJD's ridge and no cut-off."""

    def __init__(self, pref_vector: Tensor | None = None, projector: DualConeProjector | None = None) -> None:
        super().__init__(pref_vector, projector=projector or ConeProjector(reg_eps=REG_EPS))


class NashMTLWeighting(_NashMTLWeighting):
    """Weights of `NashMTL`, from a Jacobian: the exact solution in every call, whatever the last one was.

    Peers differ: TorchJD iterates a convex approximation from its last answer, and returns what it has where the
    solver fails: without a word, and for small gradients always. ``optim_niter`` is kept and not used.
    """

    def forward(self, matrix: Tensor, /) -> Tensor:
        """Weights [m] of a Jacobian [m, n].

        Raises:
            ValueError: it has not n_tasks rows.
        """
        return nash_weights(self, gramian_of(matrix)).to(weights_dtype([matrix]))


def nash_weights(weighting: _NashMTLWeighting, gramian: Tensor) -> Tensor:
    """Nash-MTL's weights [m] of a Gram matrix [m, m], or those of an earlier one; 0 without a solution.

    Raises:
        ValueError: the matrix is not that of n_tasks tasks.
    """
    if len(gramian) != weighting.n_tasks:
        raise ValueError(f"The matrix has {len(gramian)} rows, but n_tasks = {weighting.n_tasks}.")
    problem = to_solve(gramian)
    due = weighting.step % weighting.update_weights_every == 0
    weighting.step += 1
    if due:
        setattr(weighting, "prvs_alpha", solution(ops.nash(problem)))  # noqa: B010 - TorchJD keeps an array there
    weights = torch.as_tensor(weighting.prvs_alpha).to(problem)
    if weighting.max_norm > 0:
        length = (weights @ problem @ weights).clamp_min(0.0).sqrt()
        weights = weights * (weighting.max_norm / length).clamp_max(1.0)
    return weights.to(gramian)
