"""GradVac: gradients turned towards the cosines that the tasks usually have."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import TaskGradients
from mtl_ext.methods.base import RandomMethod, check_choice, check_range
from mtl_ext.methods.grad_method import GramMethod


class GradVac(RandomMethod, GramMethod):
    """Gradient vaccine (Wang et al. 2021, Algorithm 1): gradients turned until their cosines reach a moving average.

    For each task i, against the other tasks j in random order: where the cosine of the running gradient and g_j is
    below its target, a multiple of g_j makes it equal; every visited pair moves its target towards the cosine that was
    found. The results are summed. See :func:`mtl_ext.ops.gradvac` for the rules in degenerate cases.

    Draws per call, from the generator: K times ``randperm(K - 1)``, a permutation of the others (TorchJD's order); all
    groups use the same. Peers differ: TorchJD adds 1e-8 to denominators; other code moves targets only where it
    corrects, so that they never become positive.

    Args:
        num_tasks: K.
        beta: how fast targets follow the cosines; the paper takes 1e-2, TorchJD and LibMTL 0.5.
        groups: ``"model"``: all shared parameters together; ``"tensor"``: each parameter tensor by itself; or lists of
            parameters, for example one per layer, which together are the shared parameters. Each group has cosines,
            targets and weights of its own. LibMTL's ``GradVac_group_type`` 0, 2 and 1.
        reduction: ``"sum"`` as in the paper and the peers, or ``"mean"``: divided by K.
        weight_heads: see `GradMethod`; with several groups, a head's weight is the mean over the groups, and so are
            the weights that `backward` returns.
        generator: CPU generator to draw from; by default a new one, seeded with ``seed``.
        seed: of the default generator.
        nonfinite: see `Method`.

    Attributes:
        target: [G, K, K] float64, the wanted cosines, 0 at first.
    """

    target: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        beta: float = 0.5,
        groups: str | Sequence[Iterable[Tensor]] = "model",
        reduction: str = "sum",
        weight_heads: bool = False,
        generator: torch.Generator | None = None,
        seed: int = 0,
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(
            generator=generator, seed=seed, reduction=reduction, weight_heads=weight_heads, nonfinite=nonfinite
        )
        check_range("num_tasks", num_tasks, 1)
        check_range("beta", beta, 0.0, 1.0)
        if isinstance(groups, str):
            check_choice("groups", groups, ("model", "tensor"))
        self.beta = beta
        self.groups = groups if isinstance(groups, str) else [list(group) for group in groups]
        self._group_of: list[int] | None = None
        self._grams: Tensor | None = None
        self.register_buffer("target", torch.zeros(1, num_tasks, num_tasks, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        """Makes room for the groups that a saved state has."""
        saved = state_dict.get(f"{prefix}target")
        if saved is not None and self.groups != "model":
            self.target = self.target.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def gram_of(self, gradients: TaskGradients) -> Tensor:
        """The Gram matrix of all, while the matrices of the groups are kept for `_combine`."""
        self._group_of = self._groups_of(gradients.targets)
        if self._group_of is None:
            return super().gram_of(gradients)
        grams = ops.gram(gradients.tensors, len(gradients.losses), self._group_of)
        self._grams = gradients.losses.unscaled(grams)
        return self._grams.sum(0)

    def _groups_of(self, targets: Sequence[Tensor]) -> list[int] | None:
        """The group of each target; None: one for all."""
        if self.groups == "model":
            return None
        if isinstance(self.groups, str):
            return list(range(len(targets)))
        known = {id(param): index for index, group in enumerate(self.groups) for param in group}
        missing = [index for index, target in enumerate(targets) if id(target) not in known]
        if missing:
            raise ValueError(f"groups lacks the shared parameters number {missing}: each belongs to one group")
        return [known[id(target)] for target in targets]

    def task_weights(self, gram: Tensor, losses: Tensor) -> Tensor:
        """The sum of the turned gradients' coefficients, of all parameters together."""
        return self._weights(gram[None])[0]

    def _weights(self, grams: Tensor) -> Tensor:
        """Weights [G, K] from Gram matrices [G, K, K]; the targets move on."""
        num_tasks = grams.shape[-1]
        if num_tasks != self.target.shape[-1]:
            raise ValueError(f"losses has {num_tasks} tasks, expected num_tasks = {self.target.shape[-1]}")
        if len(self.target) != len(grams):
            if self.target.any():
                raise ValueError(f"there are {len(grams)} groups of parameters, expected {len(self.target)} as before")
            self.target = self.target.new_zeros(grams.shape)
        others = torch.arange(num_tasks).expand(num_tasks, num_tasks)
        others = others[~torch.eye(num_tasks, dtype=torch.bool)].reshape(num_tasks, num_tasks - 1)
        draws = [torch.randperm(num_tasks - 1, generator=self.generator) for _ in range(num_tasks)]
        order = torch.stack([row[draw] for row, draw in zip(others, draws, strict=True)])
        order = order.to(grams.device, non_blocking=True)
        weights, target = ops.gradvac(grams, order, self.target, self.beta)
        self.target.copy_(torch.where(grams.isfinite().all(), target, self.target))
        return weights

    def _combine(self, gradients: TaskGradients, gram: Tensor, losses: Tensor, usable: Tensor) -> Tensor:
        if self._group_of is None or self._grams is None:
            return super()._combine(gradients, gram, losses, usable)
        weights = self.reduction_factor(len(gram)) * self._weights(self._grams)
        weights = torch.where(usable == 1, weights, usable)
        gradients.combine(weights[self._group_of])
        return weights.mean(0)
