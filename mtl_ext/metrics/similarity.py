"""How alike the tasks' gradients are, in direction and in length: both from the Gram matrix alone.

Equations of Mao et al., Robust Analysis of Multi-Task Learning on a Complex Vision System.
"""

import torch
from torch import Tensor


def gds(gram: Tensor) -> float:
    """Gradient direction similarity: the mean cosine over pairs of different tasks (Eq. 6).

    Args:
        gram: [K, K] inner products of the tasks' gradients.

    Returns:
        A value in [-1, 1]; below 0 the tasks pull apart. A pair with a zero gradient counts as 0; K = 1 gives 0.

    Raises:
        ValueError: ``gram`` is not a square matrix.
    """
    return _mean_of_pairs(cosines(gram))


def gms(gram: Tensor) -> float:
    """Gradient magnitude similarity: the mean of ``2 |g_i| |g_j| / (|g_i|^2 + |g_j|^2)`` over pairs of tasks.

    Eq. 7, after PCGrad.

    Args:
        gram: [K, K] inner products of the tasks' gradients.

    Returns:
        A value in [0, 1]; 1 where all gradients are equally long. A pair of zero gradients counts as 0; K = 1 gives 0.

    Raises:
        ValueError: ``gram`` is not a square matrix.
    """
    norms = _norms(gram)
    squares = norms.square()
    return _mean_of_pairs(_ratios(2.0 * torch.outer(norms, norms), squares[:, None] + squares[None, :]))


def cosines(gram: Tensor) -> Tensor:
    """The cosines between the tasks' gradients, [K, K] float64.

    Args:
        gram: [K, K] inner products of the tasks' gradients.

    Returns:
        Symmetric, with 1 on the diagonal; 0 in the row and column of a zero gradient.

    Raises:
        ValueError: ``gram`` is not a square matrix.
    """
    norms = _norms(gram)
    return _ratios(gram.double(), torch.outer(norms, norms))


def _norms(gram: Tensor) -> Tensor:
    """Norms [K] of the gradients."""
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram has shape {list(gram.shape)}, expected [K, K]")
    return gram.diagonal().double().sqrt()


def _ratios(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotients; 0 where the denominator is 0, NaN where the gradients were not finite."""
    return torch.where(denominator == 0, 0.0, numerator / denominator)


def _mean_of_pairs(ratios: Tensor) -> float:
    """Mean off the diagonal of a matrix [K, K]; 0 for K = 1."""
    num_tasks = ratios.shape[0]
    if num_tasks < 2:
        return 0.0
    return float(ratios.fill_diagonal_(0.0).sum() / (num_tasks * (num_tasks - 1)))
