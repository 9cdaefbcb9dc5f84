"""GradVac's corrections, carried out on the Gram matrix."""

import math

import torch
from torch import Tensor

from mtl_ext.ops.checks import check_gram, check_like_gram, check_order
from mtl_ext.ops.registry import define_operator

# A correction leaves targets this close to 1 alone: between parallel gradients it would be infinite.
PARALLEL = 1e-12


def gradvac_reference(gram: Tensor, order: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The corrections as written in the paper, on coefficient vectors instead of gradients, group by group."""
    check_gradvac(gram, order, target)
    num_tasks = gram.shape[-1]
    groups = gram.reshape(-1, num_tasks, num_tasks)
    orders = order.expand(*gram.shape[:-1], num_tasks - 1).reshape(len(groups), num_tasks, num_tasks - 1)
    new_target = target.reshape(groups.shape).clone()
    weights = gram.new_zeros(groups.shape[:-1])
    for index, group in enumerate(groups):
        if not group.isfinite().all():
            weights[index] = torch.nan
            continue
        for task in range(num_tasks):
            weights[index] += corrected(group, task, orders[index, task].tolist(), new_target[index, task], beta)
    return weights.reshape(gram.shape[:-1]), new_target.reshape(target.shape)


def corrected(gram: Tensor, task: int, order: list[int], target: Tensor, beta: float) -> Tensor:
    """The coefficients [K] of one task's corrected gradient; moves its targets [K] in place."""
    num_tasks = len(gram)
    lengths = gram.diagonal().clamp_min(0.0).sqrt()
    coefficients = torch.zeros_like(target)
    if lengths[task] == 0:
        return coefficients
    coefficients[task] = 1.0
    for j in order:
        if not 0 <= j < num_tasks or j == task or lengths[j] == 0:
            continue
        square = coefficients @ gram @ coefficients
        if square <= num_tasks * torch.finfo(gram.dtype).eps * (coefficients.abs() @ lengths) ** 2:
            break
        norm, wanted = float(square.sqrt()), float(target[j])
        cosine = min(1.0, max(-1.0, float(gram[j] @ coefficients / norm / lengths[j])))
        target[j] = (1 - beta) * wanted + beta * cosine
        square_of_sine = (1 - wanted) * (1 + wanted)
        if cosine < wanted and square_of_sine > PARALLEL:
            excess = wanted * math.sqrt((1 - cosine) * (1 + cosine) / square_of_sine) - cosine
            coefficients[j] += norm / lengths[j] * excess
    return coefficients


def check_gradvac(gram: Tensor, order: Tensor, target: Tensor) -> None:
    """Checks gradvac's arguments."""
    check_gram("gradvac", gram, batched=True)
    check_order("gradvac", order, gram)
    check_like_gram("gradvac", "target", target, gram)


def gradvac_fake(gram: Tensor, order: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Result shapes of gradvac."""
    check_gradvac(gram, order, target)
    return gram.new_empty(gram.shape[:-1]), target.new_empty(target.shape)


_gradvac = define_operator(
    "gradvac",
    "(Tensor gram, Tensor order, Tensor target, float beta) -> (Tensor, Tensor)",
    gradvac_reference,
    gradvac_fake,
)


@torch.no_grad()
def gradvac(gram: Tensor, order: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Task weights of GradVac (Wang et al. 2021, Algorithm 1): the sum of gradients turned towards wanted cosines.

    Task i starts from its own gradient v; for each j of its order in turn, with ``phi`` the cosine of v and the
    original g_j and ``t = target[i, j]`` the one wanted: where ``phi < t``, v gets the multiple of g_j that makes the
    cosine ``t`` (Equation 3), and in any case the new target is ``(1 - beta) t + beta phi`` (Equation 4), with the phi
    from before the correction. All of it happens on coefficients c with ``v = sum_k c[k] g_k``.

    Peers differ: TorchJD adds 1e-8 to the denominators, so that its weights depend on the scale of the gradients, and
    corrects towards any target (with ``eps=0``, gradients that stay parallel become infinite); other code moves the
    target only where ``phi < t``, so that it never becomes positive.

    Args:
        gram: [..., K, K], float64; leading dimensions are groups of parameters, each with weights and targets of its
            own.
        order: [K, K - 1] for all groups, or [..., K, K - 1]; int64, on the same device: the tasks each task is
            compared with, in turn, each once. Entries outside 0 .. K - 1 and the task itself are skipped.
        target: [..., K, K], float64, on the same device: the wanted cosines, 0 at the start of training.
        beta: how fast targets follow the cosines, 0 to 1.

    Returns:
        weights [..., K] float64. A task with a zero gradient has weight 0 and is skipped.
        new_target [..., K, K] float64. Pairs with a zero gradient keep their target, and so do those that come after v
        has vanished: ``||v||^2 <= K eps (sum_k |c[k]| ||g_k||)^2``. Targets within 1e-12 of 1 (in ``1 - t^2``) are not
        corrected towards. A group whose Gram matrix is not finite has weights NaN and keeps its targets.

    Raises:
        RuntimeError: wrong shape, dtype or device.
    """
    weights, new_target = _gradvac(gram, order, target, beta)
    return weights, new_target
