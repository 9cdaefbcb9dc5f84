"""Certificates recomputed in extended precision, and how much worse an answer is than an oracle's.

Arguments are those of the operator for one problem, without the tasks whose gradient is zero.
"""

from typing import Any

import numpy as np

from bench.oracles import Array


def extended(*arrays: Array) -> tuple[Array, ...]:
    """In extended precision."""
    return tuple(array.astype(np.longdouble) for array in arrays)


def min_norm_gap(arguments: tuple[Any, ...], weights: Array) -> float:
    """The duality gap, relative to the square or to 1e-6 of the trace."""
    gram, w = extended(arguments[0], weights)
    products = gram @ w
    value = w @ products
    return float((value - products.min()) / max(value, 1e-6 * np.trace(gram)))


def min_norm_excess(arguments: tuple[Any, ...], weights: Array, oracle: Array) -> float:
    """How much longer our combination is, squared, relative to the trace."""
    gram, w, o = extended(arguments[0], weights, oracle)
    return float(max(w @ gram @ w - o @ gram @ o, 0) / np.trace(gram))


def alpha_fair_residual(arguments: tuple[Any, ...], weights: Array) -> float:
    """``max_k |w_k^(1/alpha) (G w)_k - 1|``."""
    gram, w = extended(arguments[0], weights)
    alpha = arguments[1] if len(arguments) > 1 else 1.0
    return float(np.abs(w ** (1 / np.longdouble(alpha)) * (gram @ w) - 1).max()) if (w > 0).all() else np.inf


def relative_difference(arguments: tuple[Any, ...], weights: Array, oracle: Array) -> float:
    """Of the weights, each counted by its gradient's length."""
    lengths = np.sqrt(np.diag(arguments[0]))
    return float(np.abs((weights - oracle) * lengths).max() / np.abs(oracle * lengths).max())


def cagrad_value(gram: Array, c: float, simplex_weights: Array) -> tuple[Array, Array]:
    """CAGrad's objective, its gradient."""
    mean = gram.mean(1)
    radius = c * np.sqrt(max(mean.mean(), 0))
    products = gram @ simplex_weights
    length = np.sqrt(max(simplex_weights @ products, 0))
    gradient = mean + radius * products / length
    return simplex_weights @ gradient, gradient


def on_simplex(weights: Array) -> Array:
    """CAGrad's w from the weights of its combination, ``1 / K + lambda w``."""
    part = np.maximum(weights - np.longdouble(1) / len(weights), 0)
    return part / part.sum() if part.sum() > 0 else np.full_like(weights, 1 / len(weights))


def cagrad_gap(arguments: tuple[Any, ...], weights: Array) -> float:
    """The duality gap of CAGrad's problem, relative to its terms' size."""
    gram, w = extended(arguments[0], weights)
    value, gradient = cagrad_value(gram, arguments[1], on_simplex(w))
    return float((value - gradient.min()) / max(abs(value), gram.mean(), 1e-6 * np.trace(gram)))


def cagrad_excess(arguments: tuple[Any, ...], weights: Array, oracle: Array) -> float:
    """How much larger our objective is, relative to the trace."""
    gram, w, o = extended(arguments[0], weights, oracle)
    values = [cagrad_value(gram, arguments[1], each)[0] for each in (on_simplex(w), o)]
    return float(max(values[0] - values[1], 0) / np.trace(gram))


def dual_cone_residual(arguments: tuple[Any, ...], weights: Array) -> float:
    """The largest violated product per gradient's length, relative to the combination or 1e-5 of its terms."""
    gram, lower, v = extended(arguments[0], arguments[1], weights)
    lengths = np.sqrt(np.diag(gram))
    products = gram @ v
    violation = np.where(v > lower, np.abs(products), np.maximum(-products, 0)) / lengths
    size = max(np.sqrt(max(v @ products, 0)), 1e-5 * (np.abs(v) @ lengths))
    if (v < lower).any():
        return np.inf
    return float(violation.max() / size) if size > 0 else 0.0


def dual_cone_excess(arguments: tuple[Any, ...], weights: Array, oracle: Array) -> float:
    """How much longer our combination is, squared, relative to its terms."""
    gram, v, o = extended(arguments[0], weights, oracle)
    terms = np.abs(o) @ np.sqrt(np.diag(gram))
    return float(max(v @ gram @ v - o @ gram @ o, 0) / terms**2) if terms > 0 else float(np.abs(v).max())


def simplex_residual(arguments: tuple[Any, ...], weights: Array) -> float:
    """How far from the simplex, or the gap of the projection."""
    values, w = extended(arguments[0], weights)
    rest = values - values.max() - w
    return float(max(abs(w.sum() - 1), rest.max() - w @ rest, -w.min()))


def own_answer(*_: Any) -> float:
    """For answers without an optimality condition of their own: only the oracle judges them."""
    return 0.0
