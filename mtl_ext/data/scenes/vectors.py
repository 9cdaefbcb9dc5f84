"""Vectors of three components, one row each: [3, n] arrays and plain arithmetic.

Products are written out instead of `@`: a BLAS sums in an order that depends on sizes, threads and the machine, and a
scene must have the same bits in every process.
"""

import numpy as np


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products [n] of vectors [3, n]; either may be a single vector [3] or [3, 1]."""
    product: np.ndarray = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def rotate(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The matrix [3, 3] times each vector [3, n]."""
    return np.stack([dot(row, vectors) for row in matrix])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [3, n] at length 1."""
    scaled: np.ndarray = vectors / np.sqrt(dot(vectors, vectors))
    return scaled


def about_z(angle: float) -> np.ndarray:
    """Rotation [3, 3] by an angle in radians about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def about_x(angle: float) -> np.ndarray:
    """Rotation [3, 3] by an angle in radians about the first axis."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
