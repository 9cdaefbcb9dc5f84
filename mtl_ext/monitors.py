"""What to watch while a model trains, without changing the training."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.metrics import gds, gms


class SimilarityMonitor:
    """Records GDS and GMS of the tasks' gradients every n steps, whatever the method.

    One line in any loop::

        monitor.observe(losses, shared=model.shared_parameters(), features=z)
        method.backward(losses, ...)

    Args:
        every: steps between two measurements; the first step is measured. A measurement costs one backward per task.

    Attributes:
        records: one dict per measurement: ``step``, ``parameter_gds``, ``parameter_gms`` and, where the features were
            given, ``feature_gds`` and ``feature_gms``.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1")
        self.every = every
        self.step = 0
        self.records: list[dict[str, float]] = []

    def observe(
        self, losses: Mapping[str, Tensor] | Sequence[Tensor], shared: Iterable[Tensor], features: Tensor | None = None
    ) -> None:
        """Counts a step and measures when it is due. Call it before the backward pass; ``.grad`` is left alone.

        Args:
            losses: K scalars, by name or in order.
            shared: the P shared parameters.
            features: z [B, ...], the tensor that all heads read.
        """
        if self.step % self.every == 0:
            values = list(losses.values()) if isinstance(losses, Mapping) else list(losses)
            self.records.append({"step": float(self.step), **_similarity(values, list(shared), features)})
        self.step += 1


def _similarity(losses: Sequence[Tensor], shared: Sequence[Tensor], features: Tensor | None) -> dict[str, float]:
    """GDS and GMS at both levels; one backward per task gives the gradients of either."""
    inputs = [*shared] if features is None else [features, *shared]
    grads = [torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True) for loss in losses]
    # An empty tensor is the operators' absent gradient: a parameter that a task does not touch.
    rows = [[inputs[0].new_empty(0) if grad is None else grad for grad in row] for row in grads]
    first = len(inputs) - len(shared)
    gram = ops.gram([grad for row in rows for grad in row[first:]], len(losses))
    measures = {"parameter_gds": gds(gram), "parameter_gms": gms(gram)}
    if features is not None:
        gram = ops.gram([row[0] for row in rows], len(losses))
        measures |= {"feature_gds": gds(gram), "feature_gms": gms(gram)}
    return measures
