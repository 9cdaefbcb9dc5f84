"""Losses -> per-task gradients -> ... -> ``.grad``: both ends of the data flow.

Two levels. At *parameter level* every loss is sent back through the whole network, and what arrives at the shared
parameters is that task's gradient: K trunk backward passes. At *feature level* it is sent back through its head to the
features that the heads read; the combination of the K feature gradients makes one trunk backward pass. At both, the
heads' own parameters receive the gradient of their own loss from the same pass.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.heads import HeadGradients, backward_setting_heads_aside, backward_through_head
from mtl_ext.losses import TaskLosses
from mtl_ext.penalty import Cotangent, Penalty, penalty_cotangents

Features = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


class TaskGradients:
    """Per-task gradients with respect to P targets, and the way of their combination into ``.grad``.

    Used in a ``with`` block, which ends what collecting the gradients began.

    Args:
        targets: the P tensors, shared parameters or features.
        losses: the K losses.
        collect_heads: set the gradients of the heads' own parameters aside, to be weighed, instead of accumulating
            them into ``.grad``.

    Attributes:
        tensors: K * P gradients, task-major; empty where a task does not touch a target. Scaled where the losses are.
        heads: the gradients set aside, or None.
    """

    def __init__(self, targets: Sequence[Tensor], losses: TaskLosses, *, collect_heads: bool = False) -> None:
        self.targets = targets
        self.losses = losses
        self.tensors: list[Tensor] = []
        self.heads = HeadGradients() if collect_heads else None

    def __enter__(self) -> "TaskGradients":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def gram(self, chosen: Sequence[int] | None = None) -> Tensor:
        """Inner products [K, K] of the tasks' gradients, as they are without a scaler.

        Args:
            chosen: indices of the targets that count; all by default.
        """
        count = len(self.targets)
        rows = range(0, len(self.tensors), count)
        tensors = self.tensors if chosen is None else [self.tensors[row + p] for row in rows for p in chosen]
        return self.losses.unscaled(ops.gram(tensors, len(self.losses)))

    def eps(self) -> float:
        """Machine epsilon of the gradients; of mixed dtypes the largest."""
        return max(torch.finfo(target.dtype).eps for target in self.targets)

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

    def add_earlier(self, earlier: "TaskGradients") -> None:
        """Adds the gradients of an earlier batch, task by task.

        Raises:
            ValueError: they belong to other parameters or tasks.
        """
        same = [id(param) for param in earlier.targets] == [id(param) for param in self.targets]
        if not same or earlier.losses.keys != self.losses.keys:
            raise ValueError("shared or losses differ from those of the micro-batches that this call completes")
        for index, grad in enumerate(earlier.tensors):
            mine = self.tensors[index]
            self.tensors[index] = grad if mine.numel() == 0 else mine if grad.numel() == 0 else mine.add_(grad)
        self.losses.values += earlier.losses.values
        if self.heads is not None and earlier.heads is not None:
            self.heads.add_earlier(earlier.heads)

    def combine(self, weights: Tensor) -> None:
        """Adds the combined gradient ``sum_k weights[k] g_k`` to the ``.grad`` of what is trained.

        Args:
            weights: [K], or a row for each target, [P, K]; float64.
        """
        raise NotImplementedError

    def write(self, combined: Sequence[Tensor], factor: Tensor) -> None:
        """Adds a combination that is there already to the ``.grad`` of what is trained.

        Args:
            combined: P tensors, empty where no task touches a target; may be the first task's own gradients.
            factor: [1] float64, what to multiply by; with 0 the combination is not read.
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
        penalties: what adds to the tasks' gradients.
        collect_heads: see `TaskGradients`.
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
        penalties: Sequence[Penalty] = (),
        collect_heads: bool = False,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> None:
        super().__init__(trainable(shared), losses, collect_heads=collect_heads)
        boundary = [] if features is None else listed(features, losses)
        extra = penalty_cotangents(penalties, losses)
        self._earlier = [param.grad for param in self.targets]
        try:
            for k, name in enumerate(losses.names):
                for param in self.targets:
                    param.grad = None
                self._backward(k, boundary, extra[k], keep_graph=retain_graph or k + 1 < len(losses))
                self.add_task(name, [param.grad for param in self.targets], allow_unused=allow_unused)
        except BaseException:
            self.__exit__()
            raise

    def _backward(self, k: int, boundary: Sequence[Tensor], extra: Sequence[Cotangent], *, keep_graph: bool) -> None:
        """Task k's pass through head and trunk."""
        roots = [(self.losses.tensors[k], self.losses.cotangent(k)), *extra]
        if boundary:
            cotangents = backward_through_head(
                roots, boundary, keep_graph=keep_graph, collected=self.heads, shared=self.targets
            )
            _backward_through_trunk(boundary, cotangents, keep_graph=keep_graph)
        elif self.heads is None:
            tensors, grads = zip(*roots, strict=True)
            torch.autograd.backward(tensors, grads, retain_graph=keep_graph)
        else:
            backward_setting_heads_aside(roots, self.targets, keep_graph=keep_graph, collected=self.heads)

    def __exit__(self, *error: object) -> None:
        for param, grad in zip(self.targets, self._earlier, strict=True):
            param.grad = grad

    def combine(self, weights: Tensor) -> None:
        """Adds the combined gradient to the parameters' ``.grad``, allocating nothing."""
        self._earlier = combined_into(self._earlier, self.tensors, weights)

    def write(self, combined: Sequence[Tensor], factor: Tensor) -> None:
        """Adds a finished combination to the parameters' ``.grad``."""
        self._earlier = combined_into(self._earlier, combined, factor)


class FeatureGradients(TaskGradients):
    """Per-task gradients with respect to features; their combination goes through the trunk, once.

    Args:
        losses: the K losses.
        features: a tensor or several that all tasks read, or one per task (own input): a mapping with the losses'
            names, or a sequence of which each task reaches its own.
        penalties: what adds to the tasks' gradients.
        collect_heads: see `TaskGradients`.
        retain_graph: keep the graph after the last task and after the trunk's backward pass.
        allow_unused: accept a task that reaches no feature.

    Attributes:
        own_input: every task has features of its own, between which inner products mean nothing.

    Raises:
        ValueError: a feature has no graph, the names differ from the losses', or a task reaches no feature.
    """

    def __init__(
        self,
        losses: TaskLosses,
        features: Features,
        *,
        penalties: Sequence[Penalty] = (),
        collect_heads: bool = False,
        retain_graph: bool = False,
        allow_unused: bool = False,
    ) -> None:
        super().__init__(listed(features, losses), losses, collect_heads=collect_heads)
        self.retain_graph = retain_graph
        extra = penalty_cotangents(penalties, losses)
        for k, (name, loss) in enumerate(zip(losses.names, losses.tensors, strict=True)):
            cotangents = backward_through_head(
                [(loss, losses.cotangent(k)), *extra[k]],
                self.targets,
                keep_graph=retain_graph or k + 1 < len(losses),
                collected=self.heads,
            )
            self.add_task(name, cotangents, allow_unused=allow_unused)
        self.own_input = reads_own_input(features, self)

    def combine(self, weights: Tensor) -> None:
        """Sends the combined feature gradient back through the trunk; a leaf among the features gets it as ``.grad``.

        The combination is new memory: unlike a parameter's ``.grad``, what autograd returns may be shared.
        """
        combined = [grad if grad.numel() > 0 else None for grad in ops.combine(self.tensors, weights)]
        for z, grad in zip(self.targets, combined, strict=True):
            if z.is_leaf and grad is not None:
                z.grad = grad if z.grad is None else z.grad + grad
        _backward_through_trunk(self.targets, combined, keep_graph=self.retain_graph)

    def write(self, combined: Sequence[Tensor], factor: Tensor) -> None:
        """Sends a finished combination back through the trunk."""
        self.tensors = list(combined)
        self.combine(factor)


def reads_own_input(features: Features, gradients: TaskGradients) -> bool:
    """Whether every task has features of its own: named after the tasks, or each task reaches but its own."""
    count, num_tasks = len(gradients.targets), len(gradients.losses)
    touched = [[g.numel() > 0 for g in gradients.tensors[k * count : (k + 1) * count]] for k in range(num_tasks)]
    own = [[k == p for p in range(count)] for k in range(num_tasks)]
    return num_tasks > 1 and (isinstance(features, Mapping) or touched == own)


def combined_into(existing: Sequence[Tensor | None], grads: Sequence[Tensor], weights: Tensor) -> list[Tensor | None]:
    """Adds ``sum_k weights[k] g_k`` to existing gradients, or writes it over a task's own where there is none.

    Args:
        existing: P gradients or None.
        grads: K * P, task-major; that of the first task that has a parameter is overwritten where nothing exists.
        weights: [K], or a row for each parameter, [P, K]; float64.

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
            chosen = [columns[p][k] for k in range(weights.shape[-1]) for p in params]
            ops.combine_(targets, chosen, weights if weights.dim() == 1 else weights[params], accumulate=accumulate)
    return out


def trainable(shared: Iterable[Tensor]) -> list[Tensor]:
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


def listed(features: Features, losses: TaskLosses) -> list[Tensor]:
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


def _backward_through_trunk(
    features: Sequence[Tensor], cotangents: Sequence[Tensor | None], *, keep_graph: bool
) -> None:
    """Backward from the features on."""
    roots = [(z, g) for z, g in zip(features, cotangents, strict=True) if g is not None and not z.is_leaf]
    if roots:
        torch.autograd.backward([z for z, _ in roots], [g for _, g in roots], retain_graph=keep_graph)
