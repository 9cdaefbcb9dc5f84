"""What theory says about where methods end and about their steps, and whether a descent agrees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.pareto.descent import Descent
from mtl_ext.pareto.toy import Front, Toy

# Of the balanced minimum norm, see `stationarity`. The bowls are shallow along y: 1e-3 is 0.14 away from the front.
STATIONARY = 1e-3
# In parameters, of which the front has 14 from end to end.
NEAR = 0.05
# Of a step's identity, relative.
IDENTITY = 1e-6
# Smallest eigenvalue of a Gram matrix of parallel gradients, relative to the trace.
FULL_RANK = 1e-12

Objective = Callable[[Tensor], Tensor]
Residual = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Theory:
    """One method's row.

    Attributes:
        end: where a descent ends, in words.
        step: what each step fulfils, in words; "" where nothing is checked.
        objective: losses above their lower bounds [P, 2] -> [P], whose local minima along the front are the possible
            ends; None: every Pareto-stationary point is.
        step_residual: Gram matrices [T, 2, 2] and weights [T, 2] -> [T], 0 where the step fulfils its identity.
        tolerance: of the distance to an end.
        options: of the method, where its defaults do not fit.
    """

    end: str
    step: str = ""
    objective: Objective | None = None
    step_residual: Residual | None = None
    tolerance: float = NEAR
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One descent, judged.

    Attributes:
        end: the last parameters.
        losses: there.
        distance: from the end to the Pareto front, in parameters.
        stationarity: the balanced minimum norm at the end, see `stationarity`.
        end_residual: distance to the nearest end that theory names, or the stationarity; None without a theory.
        step_residual: the largest of the steps that were not yet Pareto-stationary; None where nothing is checked.
        status: ``"reached"``, ``"missed"``, ``"step off"`` (the end is right, a step is not), or ``"no claim"``.
    """

    end: tuple[float, float]
    losses: tuple[float, float]
    distance: float
    stationarity: float
    end_residual: float | None
    step_residual: float | None
    status: str


def stationarity(grams: Tensor, front: Front) -> Tensor:
    """The shortest convex combination of the raw gradients, each relative to its largest norm on the front.

    Args:
        grams: [..., 2, 2] float64, of the gradients.
        front: for the norms.

    Returns:
        [...] float64: 0 at a Pareto-stationary point, whatever the losses' scales.
    """
    balanced = grams / (front.slopes[:, None] * front.slopes)
    weights, *_ = ops.min_norm(balanced)
    return torch.einsum("...i,...ij,...j->...", weights, balanced, weights).clamp_min(0).sqrt()


def ends(theory: Theory, toy: Toy, front: Front) -> Tensor:
    """The parameters [E, 2] where a descent may end: the objective's local minima along the front, or all of it."""
    if theory.objective is None:
        return front.parameters
    values = theory.objective(front.losses - toy.lower_bounds)
    beyond = values.new_full((1,), torch.inf)
    is_minimum = (values <= torch.cat([beyond, values[:-1]])) & (values <= torch.cat([values[1:], beyond]))
    return front.parameters[is_minimum]


def judge(toy: Toy, front: Front, descent: Descent, theory: Theory | None) -> Outcome:
    """Compares a descent with a method's theory; None: there is none."""
    end = descent.path[-1]
    gradients = toy.gradients(end[None])
    still = float(stationarity(gradients @ gradients.mT, front))
    end_residual = step_residual = None
    status = "no claim"
    if theory is not None:
        goal, tolerance = still, STATIONARY
        if theory.objective is not None:
            goal, tolerance = float((ends(theory, toy, front) - end).norm(dim=1).min()), theory.tolerance
        end_residual = goal
        status = "reached" if goal <= tolerance else "missed"
        if theory.step_residual is not None:
            moving = stationarity(descent.grams, front) > STATIONARY
            residuals = theory.step_residual(descent.grams[moving], descent.weights[moving])
            step_residual = float(residuals.max()) if len(residuals) else 0.0
            if status == "reached" and not step_residual <= IDENTITY:
                status = "step off"
    x, y = end.tolist()
    first, second = toy.losses(end).tolist()
    distance = float((front.parameters - end).norm(dim=1).min())
    return Outcome((x, y), (first, second), distance, still, end_residual, step_residual, status)


def _progress(grams: Tensor, weights: Tensor) -> Tensor:
    """Inner products [T, 2] of the step with each gradient."""
    return torch.einsum("tij,tj->ti", grams, weights)


def _spread(values: Tensor) -> Tensor:
    """How far the two columns [T, 2] are from equal, relative to the larger."""
    return (values[:, 0] - values[:, 1]).abs() / values.abs().amax(1).clamp_min(torch.finfo(values.dtype).tiny)


def _equal_bargains(grams: Tensor, weights: Tensor) -> Tensor:
    """``a_k (G a)_k`` is the same for all k: ``G a = 1 / a`` but for the step's length."""
    return _spread(weights * _progress(grams, weights))


def _equal_projections(grams: Tensor, weights: Tensor) -> Tensor:
    """``(G w)_k / |g_k|`` is the same for all k."""
    return _spread(_progress(grams, weights) / grams.diagonal(dim1=1, dim2=2).sqrt())


def _conflict(grams: Tensor, weights: Tensor) -> Tensor:
    """How far the step's cosine with a gradient is below 0."""
    progress = _progress(grams, weights)
    lengths = grams.diagonal(dim1=1, dim2=2) * (weights * progress).sum(1, keepdim=True)
    return (-progress / lengths.clamp_min(torch.finfo(grams.dtype).tiny).sqrt()).amax(1).clamp_min(0)


def _duality_gap(grams: Tensor, weights: Tensor) -> Tensor:
    """``(w^T G w - min_k (G w)_k) / w^T G w``: 0 for the shortest combination."""
    progress = _progress(grams, weights)
    square = (weights * progress).sum(1)
    return (square - progress.amin(1)) / square


def _ball(grams: Tensor, weights: Tensor) -> Tensor:
    """CAGrad's step, before rescaling, is on the ball's border: ``|d - g_0| = c |g_0|``, c = 0.4, relative to |g_0|."""
    shift = weights * (1 + 0.4**2) / 2 - 0.5
    mean = grams.mean((1, 2))
    return ((torch.einsum("ti,tij,tj->t", shift, grams, shift) / mean).clamp_min(0).sqrt() - 0.4).abs()


def _aligned(grams: Tensor, weights: Tensor) -> Tensor:
    """``|d|^2 = K lambda_min(G)``, relative to the trace, where G has rank K: all singular values are the smallest."""
    square = (weights * _progress(grams, weights)).sum(1)
    trace = grams.diagonal(dim1=1, dim2=2).sum(1)
    smallest = torch.linalg.eigvalsh(grams)[:, 0]
    return torch.where(smallest > FULL_RANK * trace, (square - 2 * smallest).abs() / trace, 0.0)


def _sum(losses: Tensor) -> Tensor:
    return losses.sum(1)


def _logarithms(losses: Tensor) -> Tensor:
    return losses.log().sum(1)


SUM = "the minimum of the sum of the losses"
PRODUCT = "a local minimum of the product of the losses"
ANY = "a Pareto-stationary point"

# Random methods follow the sum only on average, and DWA's weights become equal only as the losses settle.
SCATTER = 0.5

THEORY: dict[str, Theory] = {
    "EW": Theory(SUM, objective=_sum),
    "DWA": Theory(SUM, objective=_sum, tolerance=SCATTER),
    "CAGrad": Theory(SUM, "the step is on the ball's border", _sum, _ball),
    "TrimmedMean": Theory(SUM, objective=_sum),
    "RLW": Theory(SUM, objective=_sum, tolerance=SCATTER),
    "RGW": Theory(SUM, objective=_sum, tolerance=SCATTER),
    "GradDrop": Theory(SUM, objective=_sum, tolerance=SCATTER),
    "SI": Theory(PRODUCT, objective=_logarithms),
    "GLS": Theory(PRODUCT, objective=_logarithms),
    "UW": Theory(PRODUCT, objective=_logarithms),
    "IMTLL": Theory(PRODUCT, objective=_logarithms),
    "TaskObjectiveWeights": Theory(PRODUCT, objective=_logarithms),
    "STCH": Theory(
        "the minimum of the smooth maximum of the losses",
        objective=lambda losses: (losses / 2).logsumexp(1),
        options={"form": "linear"},
    ),
    # A single auxiliary's constraint can always be met, so that every step makes progress on it.
    "PCD": Theory("the minimum of the second, the auxiliary loss", objective=lambda losses: losses[:, 1]),
    "MGDA": Theory(ANY, "the step is the shortest combination", step_residual=_duality_gap),
    "PCGrad": Theory(ANY, "no conflict with a gradient", step_residual=_conflict),
    "UPGrad": Theory(ANY, "no conflict with a gradient", step_residual=_conflict),
    "DualProj": Theory(ANY, "no conflict with a gradient", step_residual=_conflict),
    "NashMTL": Theory(ANY, "G a = 1 / a, but for length", step_residual=_equal_bargains),
    "FairGrad": Theory(ANY, "G w = 1 / w, but for length", step_residual=_equal_bargains),
    "IMTLG": Theory(ANY, "equal projections", step_residual=_equal_projections),
    "ConFIG": Theory(ANY, "equal projections", step_residual=_equal_projections),
    "AlignedMTL": Theory(ANY, "|d|^2 = 2 lambda_min(G)", step_residual=_aligned),
    "IMTL": Theory(ANY),
    "CRMOGM": Theory(ANY),
    "DBMTL": Theory(ANY),
    # Without noise, gradients need no averages that forget more and more slowly; those trail behind the descent.
    "MoCo": Theory(ANY, options={"sigma": 0.0}),
    "MoDo": Theory(ANY),
    "SDMGrad": Theory(ANY),
    "FAMO": Theory(ANY),
}
