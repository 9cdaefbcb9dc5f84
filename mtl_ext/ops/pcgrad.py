"""PCGrad's projections, carried out on the Gram matrix."""

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_gram, check_order
from mtl_ext.ops.registry import define_operator


def pcgrad_reference(gram: Tensor, order: Tensor) -> Tensor:
    """The projections as written in the paper, on coefficient vectors instead of gradients."""
    check_gram("pcgrad", gram, batched=False)
    check_order("pcgrad", order, gram)
    num_tasks = gram.shape[0]
    weights = torch.zeros(num_tasks, dtype=torch.float64, device=gram.device)
    for i in range(num_tasks):
        coefficients = torch.zeros_like(weights)
        coefficients[i] = 1.0
        for j in order[i].tolist():
            if not 0 <= j < num_tasks or j == i:
                continue
            product = gram[j] @ coefficients
            if product < 0 and gram[j, j] > 0:
                coefficients[j] -= product / gram[j, j]
        weights += coefficients
    return weights


def pcgrad_fake(gram: Tensor, order: Tensor) -> Tensor:
    """Result shape of pcgrad."""
    check_gram("pcgrad", gram, batched=False)
    check_order("pcgrad", order, gram)
    return gram.new_empty((gram.shape[0],))


_pcgrad = define_operator("pcgrad", "(Tensor gram, Tensor order) -> Tensor", pcgrad_reference, pcgrad_fake)


@torch.no_grad()
def pcgrad(gram: Tensor, order: Tensor) -> Tensor:
    """Task weights of PCGrad (Yu et al. 2020, Algorithm 1): the sum over tasks of the projected gradients.

    Task i starts from its own gradient; for each j of ``order[i]`` in turn, a running gradient that conflicts with g_j
    (negative inner product) loses its component along the original g_j. All of it happens on coefficients c with
    running gradient ``sum_k c[k] g_k``, whose inner product with g_j is ``(G c)_j``.

    Args:
        gram: [K, K], float64.
        order: [K, K - 1], int64, on the same device: the tasks each task is projected against, in turn. Entries outside
            0 .. K - 1 and the task itself are skipped.

    Returns:
        Tensor [K], float64. A task with a zero gradient is not projected against.

    Raises:
        RuntimeError: wrong shape, dtype or device.
    """
    result: Tensor = _pcgrad(gram, order)
    return result
