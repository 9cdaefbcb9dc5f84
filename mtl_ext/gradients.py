"""Losses -> per-task gradients -> ... -> ``.grad``: both ends of the data flow.

Two levels. At *parameter level* every loss is sent back through the whole network, and what arrives at the shared
parameters is that task's gradient: K trunk backward passes. At *feature level* it is sent back through its head to the
features that the heads read; the combination of the K feature gradients makes one trunk backward pass. At both, the
heads' own parameters receive the gradient of their own loss from the same pass.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from mtl_ext import ops

Losses = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
Features = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class TaskLosses:
    """K scalar losses and their names.

    Args:
        losses: tensor [K], sequence of K scalars, or mapping from task name to scalar.

    Attributes:
        tensors: K scalars with their graphs.
        names: for messages, ``losses['depth']`` or ``losses[2]``.
        values: [K] float64, detached.

    Raises:
        ValueError: no loss, a loss that is not a scalar, or one without a graph.
    """

    def __init__(self, losses: Losses) -> None:
        if isinstance(losses, Tensor) and losses.dim() != 1:
            raise ValueError(f"losses has shape {list(losses.shape)}, expected [K]: one scalar per task")
        self.keys: list[str | int] = list(losses) if isinstance(losses, Mapping) else list(range(len(losses)))
        self.names = [f"losses[{key!r}]" for key in self.keys]
        self.tensors = list(losses.values()) if isinstance(losses, Mapping) else list(losses)
        if not self.tensors:
            raise ValueError("losses is empty, expected at least one task")
        for name, loss in zip(self.names, self.tensors, strict=True):
            if loss.numel() != 1:
                raise ValueError(
                    f"{name} has shape {list(loss.shape)}, expected a scalar: reduce it, e.g. with .mean()"
                )
            if not loss.requires_grad:
                raise ValueError(f"{name} does not require grad: nothing it was computed from can be trained")
        self.values = torch.stack([loss.detach().reshape(()).double() for loss in self.tensors])

    def __len__(self) -> int:
        return len(self.tensors)


class TaskGradients:
    """Per-task gradients with respect to P targets, and the way of their combination into ``.grad``.

    Used in a ``with`` block, which ends what collecting the gradients began.

    Args:
        targets: the P tensors, shared parameters or features.

    Attributes:
        tensors: K * P gradients, task-major; empty where a task does not touch a target.
    """

    def __init__(self, targets: Sequence[Tensor]) -> None:
        self.targets = targets
        self.tensors: list[Tensor] = []

    def __enter__(self) -> "TaskGradients":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def add_task(self, name: str, grads: Sequence[Tensor | None], *, allow_unused: bool) -> None:
        """Appends one task's P gradients; None becomes an empty tensor here and nowhere else.

        Raises:
            ValueError: all are None, unless ``allow_unused``.
        """
        if not allow_unused and all(grad is None for grad in grads):
            raise ValueError(
                f"{name} reaches none of the shared parameters or features. Pass the tensors that its graph contains "
                "(a model compiled as a whole hides its features: use shared= there), or allow_unused=True."
            )
        for target, grad in zip(self.targets, grads, strict=True):
            self.tensors.append(target.new_empty(0) if grad is None else grad)

    def combine(self, weights: Tensor) -> None:
        """Adds the combined gradient ``sum_k weights[k] g_k`` to the ``.grad`` of what is trained.

        Args:
            weights: [K], float64.
        """
        raise NotImplementedError


class ParameterGradients(TaskGradients):
    """Per-task gradients with respect to the shared parameters: one trunk backward pass per task.

    The parameters' ``.grad`` is borrowed for the passes and given back when the ``with`` block ends, with the combined
    gradient added if `combine` was called. What else the losses reach has its gradients accumulated by the same passes.

    Args:
        losses: the K losses.
        shared: the shared parameters; frozen ones are left out.
        features: where heads and trunk meet; each task's pass then goes through the head first, and through the trunk
            from the features' cotangents.
        retain_graph: keep the graph after the last task.
        allow_unused: accept a task that reaches no shared parameter.

    Raises:
        ValueError: ``shared`` holds nothing trainable, or a task reaches none of it.
    """

    def __init__(
        self,
        losses: TaskLosses,
        shared: Iterable[Tensor],
        features: Features | None = None,
        *,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> None:
        super().__init__(_trainable(shared))
        boundary = [] if features is None else _listed(features, losses)
        self._earlier = [param.grad for param in self.targets]
        try:
            for k, (name, loss) in enumerate(zip(losses.names, losses.tensors, strict=True)):
                keep_graph = retain_graph or k + 1 < len(losses)
                for param in self.targets:
                    param.grad = None
                if boundary:
                    cotangents = backward_through_head(loss, boundary, keep_graph=keep_graph)
                    _backward_through_trunk(boundary, cotangents, keep_graph=keep_graph)
                else:
                    loss.backward(retain_graph=keep_graph)
                self.add_task(name, [param.grad for param in self.targets], allow_unused=allow_unused)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for param, grad in zip(self.targets, self._earlier, strict=True):
            param.grad = grad

    def combine(self, weights: Tensor) -> None:
        """Adds the combined gradient to the parameters' ``.grad``, allocating nothing."""
        self._earlier = combined_into(self._earlier, self.tensors, weights)


class FeatureGradients(TaskGradients):
    """Per-task gradients with respect to features; their combination goes through the trunk, once.

    Args:
        losses: the K losses.
        features: a tensor or several that all tasks read, or one per task (own input): a mapping with the losses'
            names, or a sequence of which each task reaches its own.
        retain_graph: keep the graph after the last task and after the trunk's backward pass.
        allow_unused: accept a task that reaches no feature.

    Attributes:
        own_input: every task has features of its own, between which inner products mean nothing.

    Raises:
        ValueError: a feature has no graph, the names differ from the losses', or a task reaches no feature.
    """

    def __init__(
        self, losses: TaskLosses, features: Features, *, retain_graph: bool = False, allow_unused: bool = False
    ) -> None:
        super().__init__(_listed(features, losses))
        self.retain_graph = retain_graph
        for k, (name, loss) in enumerate(zip(losses.names, losses.tensors, strict=True)):
            keep_graph = retain_graph or k + 1 < len(losses)
            cotangents = backward_through_head(loss, self.targets, keep_graph=keep_graph)
            self.add_task(name, cotangents, allow_unused=allow_unused)
        count = len(self.targets)
        touched = [[g.numel() > 0 for g in self.tensors[k * count : (k + 1) * count]] for k in range(len(losses))]
        own = [[k == p for p in range(count)] for k in range(len(losses))]
        self.own_input = len(losses) > 1 and (isinstance(features, Mapping) or touched == own)

    def combine(self, weights: Tensor) -> None:
        """Sends the combined feature gradient back through the trunk; a leaf among the features gets it as ``.grad``.

        The combination is new memory: unlike a parameter's ``.grad``, what autograd returns may be shared.
        """
        combined = [grad if grad.numel() > 0 else None for grad in ops.combine(self.tensors, weights)]
        for z, grad in zip(self.targets, combined, strict=True):
            if z.is_leaf and grad is not None:
                z.grad = grad if z.grad is None else z.grad + grad
        _backward_through_trunk(self.targets, combined, keep_graph=self.retain_graph)


def combined_into(existing: Sequence[Tensor | None], grads: Sequence[Tensor], weights: Tensor) -> list[Tensor | None]:
    """Adds ``sum_k weights[k] g_k`` to existing gradients, or writes it over a task's own where there is none.

    Args:
        existing: P gradients or None.
        grads: K * P, task-major; that of the first task that has a parameter is overwritten where nothing exists.
        weights: [K], float64.

    Returns:
        P gradients; None where there is neither an existing one nor any task's.
    """
    count = len(existing)
    columns = [grads[param::count] for param in range(count)]
    own = [next((grad for grad in column if grad.numel() > 0), None) for column in columns]
    out = [grad if earlier is None else earlier for grad, earlier in zip(own, existing, strict=True)]
    for accumulate in (False, True):
        params = [p for p in range(count) if out[p] is not None and (existing[p] is not None) == accumulate]
        if params:
            targets = [target for p in params if (target := out[p]) is not None]
            chosen = [columns[p][k] for k in range(len(weights)) for p in params]
            ops.combine_(targets, chosen, weights, accumulate=accumulate)
    return out


def _trainable(shared: Iterable[Tensor]) -> list[Tensor]:
    """The distinct shared parameters that require grad."""
    if isinstance(shared, Tensor):
        raise ValueError("shared is a tensor, expected the shared parameters: model.encoder.parameters() or a list")
    params = list({id(param): param for param in shared if param.requires_grad}.values())
    if not params:
        raise ValueError(
            "shared holds nothing that requires grad (a generator is empty after its first use: pass a list)"
        )
    for index, param in enumerate(params):
        if not param.is_leaf:
            raise ValueError(f"shared[{index}] is not a leaf: pass parameters here, intermediate tensors as features=")
    return params


def _listed(features: Features, losses: TaskLosses) -> list[Tensor]:
    """The features in order; those of a mapping in the order of the losses."""
    if isinstance(features, Tensor):
        named: dict[str | int, Tensor] = {0: features}
    elif isinstance(features, Mapping):
        if set(features) != set(losses.keys):
            raise ValueError(f"features has the keys {list(features)}, expected those of losses: {losses.keys}")
        named = {key: features[key] for key in losses.keys}  # type: ignore[index]
    else:
        named = dict(enumerate(features))
    if not named:
        raise ValueError("features is empty, expected a tensor, several, or one per task")
    for key, feature in named.items():
        if not feature.requires_grad:
            raise ValueError(f"features[{key!r}] does not require grad: pass the tensor the heads read, with its graph")
    return list(named.values())


def backward_through_head(loss: Tensor, features: Sequence[Tensor], *, keep_graph: bool) -> list[Tensor | None]:
    """Backward from a loss to the features and no further; the leaves on the way accumulate into their ``.grad``.

    Args:
        loss: a scalar with a graph.
        features: P tensors of that graph.
        keep_graph: keep the graph.

    Returns:
        The loss's P gradients with respect to the features, None for those it does not reach.
    """
    accumulators = accumulators_before(loss, features)
    inputs = [*features, *(node.variable for node in accumulators)]  # type: ignore[attr-defined]
    watched = [(z, z.grad) for z in features if z.retains_grad]
    grads = torch.autograd.grad(loss, inputs, retain_graph=keep_graph, allow_unused=True)
    for z, earlier in watched:  # retain_grad() is about the pass through the trunk, not about this one
        z.grad = earlier
    for node, grad in zip(accumulators, grads[len(features) :], strict=True):
        if grad is not None:
            node(grad)  # type: ignore[operator]  # autograd's own accumulation, hooks included
    return list(grads[: len(features)])


def accumulators_before(loss: Tensor, features: Sequence[Tensor]) -> list[Node]:
    """The AccumulateGrad nodes that a loss reaches without passing through a feature: those of its head's parameters.

    Args:
        loss: a scalar with a graph.
        features: where the walk stops.
    """
    stops = {(feature.grad_fn, feature.output_nr) for feature in features if feature.grad_fn is not None}
    leaf_features = {id(feature) for feature in features if feature.is_leaf}
    found: list[Node] = []
    seen: set[Node] = set()
    stack = [loss.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and id(node.variable) not in leaf_features:
            found.append(node)
        stack += [parent for parent, index in node.next_functions if (parent, index) not in stops]
    return found


def _backward_through_trunk(
    features: Sequence[Tensor], cotangents: Sequence[Tensor | None], *, keep_graph: bool
) -> None:
    """Backward from the features on."""
    roots = [(z, g) for z, g in zip(features, cotangents, strict=True) if g is not None and not z.is_leaf]
    if roots:
        torch.autograd.backward([z for z, _ in roots], [g for _, g in roots], retain_graph=keep_graph)
