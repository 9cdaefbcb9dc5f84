"""What `bench.stress` compares the solvers with: independent solutions, and residuals in extended precision.

Nothing here shares code with the package. Convex problems go to Clarabel, an interior-point method, with tolerances of
1e-12; equations to scipy's trust-region method on their potential; spectral formulas to numpy's eigh; the projection
onto the simplex to the sort algorithm in extended precision. Every function takes one problem.
"""

import clarabel
import numpy as np
import scipy.optimize
import scipy.sparse
from numpy.typing import NDArray

Array = NDArray[np.floating]
TOLERANCE = 1e-12


def unit_gram(gram: Array) -> tuple[Array, Array]:
    """``D^-1 G D^-1`` and D, the gradients' lengths; every length must be positive."""
    lengths = np.sqrt(np.diag(gram))
    unit = gram / lengths / lengths[:, None]
    np.fill_diagonal(unit, 1.0)
    return unit, lengths


def square_root(gram: Array) -> Array:
    """A factor L with ``L^T L = G``, negative eigenvalues taken as 0."""
    values, vectors = np.linalg.eigh(gram)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def conic(quadratic: Array, linear: Array, rows: list[tuple[Array, Array, type]]) -> Array | None:
    """``min x^T Q x / 2 + l^T x`` with ``b - A x`` in each row's cone; None where Clarabel gives up.

    Args:
        quadratic: Q [n, n].
        linear: l [n].
        rows: (A, b, Clarabel's type of cone).
    """
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
    settings.reduced_tol_gap_abs = settings.reduced_tol_gap_rel = settings.reduced_tol_feas = 1e-9
    matrix = scipy.sparse.csc_matrix(np.vstack([a for a, _, _ in rows]))
    bounds = np.concatenate([b for _, b, _ in rows])
    cones = [cone(len(b)) for _, b, cone in rows]
    triangle = scipy.sparse.csc_matrix(np.triu(quadratic))
    answer = clarabel.DefaultSolver(triangle, linear, matrix, bounds, cones, settings).solve()
    return np.array(answer.x) if "Solved" in str(answer.status) else None


def simplex_rows(size: int, total: int) -> list[tuple[Array, Array, type]]:
    """The first `size` of `total` variables lie on the probability simplex."""
    ones, identity = np.zeros((1, total)), np.eye(size, total)
    ones[0, :size] = 1.0
    return [(ones, np.ones(1), clarabel.ZeroConeT), (-identity, np.zeros(size), clarabel.NonnegativeConeT)]


def min_norm(gram: Array) -> Array | None:
    """``argmin w^T G w`` on the simplex, for a matrix of trace about 1."""
    size = len(gram)
    weights = conic(2 * gram, np.zeros(size), simplex_rows(size, size))
    return None if weights is None else np.maximum(weights, 0.0) / np.maximum(weights, 0.0).sum()


def smallest_square(gram: Array) -> float:
    """``min w^T G w / tr G`` on the simplex; infinite where it cannot be told."""
    scaled = gram / np.trace(gram)
    weights = min_norm(scaled)
    return np.inf if weights is None else float(weights @ scaled @ weights)


def dual_cone(gram: Array, lower: Array) -> Array | None:
    """``argmin v^T G v``, ``v >= lower``."""
    unit, lengths = unit_gram(gram)
    bounds = lower * lengths
    scale, size = np.abs(bounds).max() or 1.0, len(gram)
    rows = [(-np.eye(size), -bounds / scale, clarabel.NonnegativeConeT)]
    solution = conic(2 * unit, np.zeros(size), rows)
    return None if solution is None else np.maximum(solution * scale, bounds) / lengths


def cagrad(gram: Array, c: float) -> Array | None:
    """The w on the simplex of ``min g_w^T g_0 + sqrt(phi) |g_w|``, as a second-order cone problem."""
    scaled = gram / np.trace(gram)
    size, mean = len(gram), scaled.mean(1)
    radius = c * np.sqrt(max(mean.mean(), 0.0))
    cone_rows = -np.vstack([np.eye(1, size + 1, size), np.hstack([square_root(scaled), np.zeros((size, 1))])])
    rows = [*simplex_rows(size, size + 1), (cone_rows, np.zeros(size + 1), clarabel.SecondOrderConeT)]
    scale = max(mean.mean(), 1e-300)
    solution = conic(np.zeros((size + 1, size + 1)), np.append(mean, radius) / np.sqrt(scale), rows)
    return None if solution is None else np.maximum(solution[:size], 0.0) / np.maximum(solution[:size], 0.0).sum()


def alpha_fair(gram: Array, alpha: float) -> Array | None:
    """``G w = w^(-1/alpha)`` as the minimum of its convex potential; None where scipy does not get there."""
    unit, lengths = unit_gram(gram)
    d = lengths / np.sqrt(np.trace(gram))
    b, power = d ** (1 / alpha - 1), -1 / alpha

    def potential(x: Array) -> float:
        if (x <= 0).any():
            return np.inf
        barrier = np.log(x).sum() if alpha == 1 else (b * x ** (1 + power)).sum() / (1 + power)
        return float(x @ unit @ x / 2 - barrier)

    start = b ** (alpha / (1 + alpha)) / np.sqrt(len(gram))
    answer = scipy.optimize.minimize(
        potential,
        start,
        jac=lambda x: unit @ x - b * np.abs(x) ** power,
        hess=lambda x: unit - np.diag(power * b * np.abs(x) ** (power - 1)),
        method="trust-exact",
        options={"gtol": 1e-13, "maxiter": 500},
    )
    x = answer.x
    if (x <= 0).any() or np.abs(x * (unit @ x) / (b * x ** (1 + power)) - 1).max() > 1e-7:
        return None
    return x / lengths * np.trace(gram) ** (0.5 - alpha / (1 + alpha))


def spectrum(gram: Array, eps: float) -> tuple[Array, Array] | None:
    """The eigenvalues above the cut ``K eps lambda_max`` and their vectors; None where one lies at the cut."""
    values, vectors = np.linalg.eigh(gram / np.trace(gram))
    cut = values[-1] * len(gram) * eps
    if ((values > cut / 4) & (values < cut * 4)).any():
        return None
    return values[values > cut], vectors[:, values > cut]


def imtl_g(gram: Array, eps: float) -> Array | None:
    """``v = pinv(G) sqrt(diag G)``, ``w = v / sum(v)``; None where the rank or the sum is a matter of rounding."""
    kept = spectrum(gram, eps)
    if kept is None:
        return None
    values, vectors = kept
    v = vectors @ ((vectors.T @ np.sqrt(np.diag(gram / np.trace(gram)))) / values)
    return None if abs(v.sum()) < 1e-3 * np.abs(v).sum() else v / v.sum()


def imtl_g_sum(gram: Array, eps: float) -> float:
    """``|sum(v)|`` over what counts as 0, ``K eps sum |v|``: the smallest for cuts of the spectrum near ``eps``."""
    found = []
    values, vectors = np.linalg.eigh(gram / np.trace(gram))
    target = vectors.T @ np.sqrt(np.diag(gram / np.trace(gram)))
    for factor in (0.25, 1.0, 4.0):
        kept = values > values[-1] * len(gram) * eps * factor
        v = vectors[:, kept] @ (target[kept] / values[kept])
        found.append(abs(v.sum()) / (len(gram) * eps * np.abs(v).sum()))
    return min(found)


def aligned(gram: Array, scale_mode: str, eps: float) -> Array | None:
    """``w = sqrt(s) V Lambda^(-1/2) V^T 1`` over the kept eigenpairs, s their smallest, lower median or mean."""
    kept = spectrum(gram, eps)
    if kept is None:
        return None
    values, vectors = kept
    chosen = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[scale_mode]
    return vectors @ (np.sqrt(chosen / values) * vectors.sum(0))


def project_simplex(values: Array) -> Array:
    """The sort algorithm in extended precision."""
    shifted = values.astype(np.longdouble) - values.max()
    descending = np.sort(shifted)[::-1]
    thresholds = (np.cumsum(descending) - 1) / np.arange(1, len(values) + 1)
    threshold = thresholds[np.nonzero(descending > thresholds)[0][-1]]
    return np.maximum(shifted - threshold, 0)
