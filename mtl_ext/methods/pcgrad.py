"""PCGrad: projecting conflicting gradients."""

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.methods.base import RandomMethod
from mtl_ext.methods.grad_method import GramMethod


class PCGrad(RandomMethod, GramMethod):
    """Gradient surgery (Yu et al. 2020, Algorithm 1): each gradient loses its components along those it conflicts with.

    For each task i, against the other tasks j in random order: where the running gradient has a negative inner product
    with the original ``g_j``, its component along ``g_j`` is taken away. The results are summed.

    Draws per call, from the generator: K times ``randperm(K)``, the task itself left out (TorchJD's order; it draws
    from the global generator). A task with a zero gradient is not projected against.

    Args:
        reduction: ``"sum"`` as in the paper's code and the peers, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`.
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.
    """

    def __init__(
        self,
        *,
        reduction: str = "sum",
        weight_heads: bool = False,
        generator: torch.Generator | None = None,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            generator=generator, seed=seed, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The sum of the projected gradients' coefficients."""
        order = draw_order(len(gram), self.generator).to(gram.device, non_blocking=True)
        return ops.pcgrad(gram, order)


def draw_order(num_tasks: int, generator: torch.Generator | None = None) -> Tensor:
    """The tasks that each task is compared with, in random order: K permutations, the task itself left out.

    Args:
        num_tasks: K.
        generator: to draw from; None: torch's default.

    Returns:
        Tensor [K, K - 1], int64.
    """
    permutations = torch.empty(num_tasks, num_tasks, dtype=torch.int64)
    for row in permutations:
        torch.randperm(num_tasks, generator=generator, out=row)
    others = permutations != torch.arange(num_tasks)[:, None]
    return permutations[others].reshape(num_tasks, num_tasks - 1)
