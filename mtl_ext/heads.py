"""The heads' side of a backward pass: what lies between a loss and the shared features or parameters."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from mtl_ext import ops

Root = tuple[Tensor, Tensor | None]
"""Where a backward pass begins, and with what gradient; None: 1, of a scalar."""


class HeadGradients:
    """Gradients of the heads' own parameters, set aside until it is known what they are multiplied by.

    Attributes:
        tasks: per task, pairs of a parameter and its gradient.
    """

    def __init__(self) -> None:
        self.tasks: list[list[tuple[Tensor, Tensor]]] = []

    def add_earlier(self, earlier: "HeadGradients") -> None:
        """Adds the same tasks' gradients of an earlier batch."""
        for pairs, more in zip(self.tasks, earlier.tasks, strict=True):
            pairs.extend(more)

    @torch.no_grad()
    def apply(self, weights: Tensor) -> None:
        """Adds ``weights[k]`` times task k's gradients to ``.grad``; weight 0 does not read them.

        Args:
            weights: [K], float64.
        """
        for k, pairs in enumerate(self.tasks):
            if not pairs:
                continue
            weighted = ops.combine([grad for _, grad in pairs], weights[k : k + 1])
            for (param, _), grad in zip(pairs, weighted, strict=True):
                param.grad = grad if param.grad is None else param.grad.add_(grad)


def backward_through_head(
    roots: Sequence[Root],
    features: Sequence[Tensor],
    *,
    keep_graph: bool,
    collected: HeadGradients | None = None,
    shared: Iterable[Tensor] = (),
) -> list[Tensor | None]:
    """Backward from a task's roots to the features and no further; leaves on the way accumulate into their ``.grad``.

    Args:
        roots: the task's loss, and other tensors of its graph where a gradient is added; may be among the features.
        features: P tensors of that graph.
        keep_graph: keep the graph.
        collected: where the leaves' gradients go instead of ``.grad``, as one more task.
        shared: leaves that accumulate all the same.

    Returns:
        The P gradients with respect to the features, None for those that no root reaches.
    """
    tensors, cotangents = zip(*roots, strict=True)
    accumulators = accumulators_before(tensors, features)
    inputs = [*features, *(node.variable for node in accumulators)]  # type: ignore[attr-defined]
    watched = [(z, z.grad) for z in features if z.retains_grad]
    grads = torch.autograd.grad(tensors, inputs, cotangents, retain_graph=keep_graph, allow_unused=True)
    for z, earlier in watched:  # retain_grad() is about the pass through the trunk, not about this one
        z.grad = earlier
    found = [(node, g) for node, g in zip(accumulators, grads[len(features) :], strict=True) if g is not None]
    own = {id(param) for param in shared}
    if collected is not None:
        collected.tasks.append([(node.variable, g) for node, g in found if id(node.variable) not in own])  # type: ignore[attr-defined]
    for node, grad in found:
        if collected is None or id(node.variable) in own:  # type: ignore[attr-defined]
            node(grad)  # type: ignore[operator]  # autograd's own accumulation, hooks included
    return list(grads[: len(features)])


def backward_setting_heads_aside(
    roots: Sequence[Root],
    shared: Iterable[Tensor],
    *,
    keep_graph: bool,
    collected: HeadGradients,
) -> None:
    """Backward through the whole graph; only the shared parameters accumulate, the rest goes to `collected`.

    Args:
        roots: see `backward_through_head`.
        shared: the shared parameters.
        keep_graph: keep the graph.
        collected: gets one more task.
    """
    own = {id(param) for param in shared}
    tensors, cotangents = zip(*roots, strict=True)
    reached = [node.variable for node in accumulators_before(tensors, ())]  # type: ignore[attr-defined]
    leaves = [leaf for leaf in reached if id(leaf) not in own]
    earlier = [leaf.grad for leaf in leaves]
    try:
        for leaf in leaves:
            leaf.grad = None
        torch.autograd.backward(tensors, cotangents, retain_graph=keep_graph)
        collected.tasks.append([(leaf, leaf.grad) for leaf in leaves if leaf.grad is not None])
    finally:
        for leaf, grad in zip(leaves, earlier, strict=True):
            leaf.grad = grad


def accumulators_before(roots: Sequence[Tensor], features: Sequence[Tensor]) -> list[Node]:
    """The AccumulateGrad nodes that are reached without passing through a feature: those of a head's parameters.

    Args:
        roots: a loss, and other tensors with a graph.
        features: where the walk stops.
    """
    stops = {(feature.grad_fn, feature.output_nr) for feature in features if feature.grad_fn is not None}
    leaf_features = {id(feature) for feature in features if feature.is_leaf}
    found: list[Node] = []
    seen: set[Node] = set()
    stack = [root.grad_fn for root in roots if (root.grad_fn, root.output_nr) not in stops]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in leaf_features:
            found.append(node)
        stack += [parent for parent, index in node.next_functions if (parent, index) not in stops]
    return found
