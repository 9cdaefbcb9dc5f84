"""LibMTL's ``rep_grad``: the graph is cut at the representation, of which each task's head reads a copy of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import FeatureGradients, TaskGradients
from mtl_ext.heads import backward_through_head
from mtl_ext.losses import TaskLosses
from mtl_ext.penalty import Penalty


class RepGradients(FeatureGradients):
    """Per-task gradients with respect to the copies; their combination goes through the encoder, once.

    As in LibMTL, what tasks are compared by is their gradient summed over the batch. So tasks with inputs of their own
    can be compared, too.

    Args:
        losses: the K losses.
        features: per task, what its copy was made of: K times the same tensor, or one per task; [B_k, ...].
        copies: per task, the leaf that its head reads, of the same shape.
        batch_sums: False for a method that looks at every sample: the gradients stay as they are, those of tasks with
            inputs of their own one below another.
        penalties: not supported.
        collect_heads: see `TaskGradients`.
        retain_graph: keep the graph.
        allow_unused: a head that does not read its representation has gradient 0, always.

    Raises:
        ValueError: the representations differ in more than their batch.
    """

    def __init__(
        self,
        losses: TaskLosses,
        features: Sequence[Tensor],
        *,
        copies: Sequence[Tensor],
        batch_sums: bool = True,
        penalties: Sequence[Penalty] = (),
        collect_heads: bool = False,
        retain_graph: bool = False,
        allow_unused: bool = True,
    ) -> None:
        shapes = [list(copy.shape[1:]) for copy in copies]
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"rep has shapes {shapes} behind the batch, expected the same for all tasks")
        self.shared = all(root is features[0] for root in features)
        self.roots = list(features[:1]) if self.shared else list(features)
        self.batch_sums = batch_sums
        self.retain_graph = retain_graph
        self.own_input = False
        values = [copy.detach() for copy in copies]
        whole = values[0] if self.shared else torch.cat(values)
        target = whole.new_empty(whole.shape[1:]) if batch_sums else whole
        TaskGradients.__init__(self, [target], losses, collect_heads=collect_heads)
        self.rows = []
        for k, (loss, copy) in enumerate(zip(losses.tensors, copies, strict=True)):
            keep = retain_graph or k + 1 < len(losses)
            roots = [(loss, losses.cotangent(k))]
            (grad,) = backward_through_head(roots, [copy], keep_graph=keep, collected=self.heads)
            self.rows.append(torch.zeros_like(values[k]) if grad is None else grad)
        self.tensors = [row.sum(0) for row in self.rows] if batch_sums else self._padded()

    def _padded(self) -> list[Tensor]:
        """The gradients with respect to all tasks' representations, one below another."""
        if self.shared:
            return self.rows
        blank = [torch.zeros_like(row) for row in self.rows]
        return [torch.cat([*blank[:k], row, *blank[k + 1 :]]) for k, row in enumerate(self.rows)]

    def combine(self, weights: Tensor) -> None:
        """Sends the weighted gradients back through the encoder."""
        weights = weights.reshape(len(self.rows))
        if self.shared:
            combined = ops.combine(self.rows, weights)
        else:
            combined = [ops.combine([row], weights[k : k + 1])[0] for k, row in enumerate(self.rows)]
        torch.autograd.backward(self.roots, combined, retain_graph=self.retain_graph)

    def write(self, combined: Sequence[Tensor], factor: Tensor) -> None:
        """Sends a finished combination back through the encoder.

        Raises:
            ValueError: it is one of sums over the batch, in which the samples are lost.
        """
        if self.batch_sums:
            raise ValueError(
                "with rep_grad=True, gradients are compared by their sums over the batch, but this weighting combines "
                "them element by element: use rep_grad=False"
            )
        (whole,) = ops.combine(combined, factor)
        parts = list(torch.split(whole, [len(root) for root in self.roots]))
        torch.autograd.backward(self.roots, parts, retain_graph=self.retain_graph)
