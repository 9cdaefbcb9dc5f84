"""Certificates recomputed in extended precision, and how much worse an answer is than an oracle's.

Each residual is the one that the operator's docstring promises, so that it may be held to the same bound.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.oracles import Array


@dataclass(frozen=True)
class Answer:
    """What a solver said about one problem.

    Attributes:
        name: for messages.
        num_tasks: K, tasks without a gradient included.
        arguments: the operator's, without the tasks whose gradient is zero.
        weights: of the tasks that have one.
    """

    name: str
    num_tasks: int
    arguments: tuple[Any, ...]
    weights: Array
    certificate: float
    status: int

    def extended(self) -> tuple[Array, Array]:
        """The first argument and the weights in extended precision."""
        return self.arguments[0].astype(np.longdouble), self.weights.astype(np.longdouble)


def min_norm_gap(answer: Answer) -> float:
    """The duality gap, relative to the square or to 1e-6 of the trace."""
    gram, w = answer.extended()
    products = gram @ w
    value = w @ products
    return float((value - products.min()) / max(value, 1e-6 * np.trace(gram)))


def min_norm_excess(answer: Answer, oracle: Array) -> float:
    """How much longer our combination is, squared, relative to the trace."""
    gram, w = answer.extended()
    return float(max(w @ gram @ w - oracle @ gram @ oracle, 0) / np.trace(gram))


def alpha_fair_residual(answer: Answer) -> float:
    """``|(G w)_k - w_k^(-1/alpha)|`` relative to the latter or to 1e-6 of ``sum_j |G_kj| w_j``, the largest."""
    gram, w = answer.extended()
    alpha = np.longdouble(answer.arguments[1] if len(answer.arguments) > 1 else 1.0)
    if not (w > 0).all():
        return np.inf
    wanted = w ** (-1 / alpha)
    return float((np.abs(gram @ w - wanted) / np.maximum(wanted, 1e-6 * (np.abs(gram) @ w))).max())


def relative_difference(answer: Answer, oracle: Array) -> float:
    """Of the weights, each counted by its gradient's length."""
    lengths = np.sqrt(np.diag(answer.arguments[0]))
    return float(np.abs((answer.weights - oracle) * lengths).max() / np.abs(oracle * lengths).max())


def cagrad_objective(answer: Answer, w: Array, radius: Array) -> tuple[Array, Array, Array]:
    """CAGrad's F at a point of the simplex, its gradient, and the size to which both are compared."""
    gram = answer.extended()[0]
    mean = gram.sum(1) / answer.num_tasks
    products = gram @ w
    length, typical = np.sqrt(max(w @ products, 0)), np.sqrt(np.diag(gram).mean())
    gradient = mean + radius * products / length
    size = (1 + 1 / answer.arguments[1]) * radius * typical * max(1, 1e-3 * typical / length) ** 2
    return w @ gradient, gradient, size


def cagrad_radius(answer: Answer) -> tuple[Array, float]:
    """``sqrt(phi)`` as the answer has it, and the relative error of phi.

    Where the gradients nearly cancel, phi is known to the rounding of the matrix alone; 16 epsilons of a typical square
    are taken for that.
    """
    gram, c = answer.extended()[0], answer.arguments[1]
    w, excess = cagrad_simplex(answer), answer.extended()[1] - np.longdouble(1) / answer.num_tasks
    radius = excess.sum() * np.sqrt(max(w @ gram @ w, 0))
    wanted = c**2 * gram.sum() / answer.num_tasks**2
    rounding = c**2 * 16 * np.finfo(np.float64).eps * np.diag(gram).mean()
    return radius, float(max(abs(radius**2 - wanted) - rounding, 0) / wanted)


def cagrad_simplex(answer: Answer) -> Array:
    """The w on the simplex, from the weights ``1 / K + lambda w`` of the combination, their rounding taken as 0."""
    part = answer.extended()[1] - np.longdouble(1) / answer.num_tasks
    part[part < 4 * np.finfo(np.float64).eps / answer.num_tasks] = 0
    return part / part.sum() if part.sum() > 0 else np.full_like(part, 1 / len(part))


def cagrad_gap(answer: Answer) -> float:
    """The duality gap ``F(w) - min_k g_k^T d``, or the error of phi, the larger of the two."""
    radius, error = cagrad_radius(answer)
    value, gradient, size = cagrad_objective(answer, cagrad_simplex(answer), radius)
    return max(float((value - gradient.min()) / size), error)


def cagrad_excess(answer: Answer, oracle: Array) -> float:
    """How much larger our objective is."""
    radius, _ = cagrad_radius(answer)
    value, _, size = cagrad_objective(answer, cagrad_simplex(answer), radius)
    return float(max(value - cagrad_objective(answer, oracle.astype(np.longdouble), radius)[0], 0) / size)


def dual_cone_residual(answer: Answer) -> float:
    """The largest violated product per gradient's length, relative to the combination or 1e-5 of its terms."""
    gram, v = answer.extended()
    lower, lengths = answer.arguments[1], np.sqrt(np.diag(gram))
    if (v < lower).any():
        return np.inf
    products = gram @ v
    violation = np.where(v > lower, np.abs(products), np.maximum(-products, 0)) / lengths
    size = max(np.sqrt(max(v @ products, 0)), 1e-5 * (np.abs(v) @ lengths))
    return float(violation.max() / size) if size > 0 else 0.0


def dual_cone_excess(answer: Answer, oracle: Array) -> float:
    """How much longer our combination is, squared, relative to its terms."""
    gram, v = answer.extended()
    terms = np.abs(oracle) @ np.sqrt(np.diag(gram))
    return float(max(v @ gram @ v - oracle @ gram @ oracle, 0) / terms**2) if terms > 0 else float(np.abs(v).max())


def simplex_residual(answer: Answer) -> float:
    """How far from the simplex, or the gap of the projection."""
    values, w = answer.extended()
    rest = values - values.max() - w
    return float(max(abs(w.sum() - 1), rest.max() - w @ rest, -w.min()))


def largest_difference(answer: Answer, oracle: Array) -> float:
    """Of weights of order 1, which may cancel to less."""
    return float(np.abs(answer.weights - oracle).max() / max(1, np.abs(oracle).max()))


def own_answer(_: Answer) -> float:
    """For weights without an optimality condition of their own: the oracle alone judges them."""
    return 0.0
