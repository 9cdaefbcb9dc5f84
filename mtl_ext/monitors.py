"""What to watch while a model trains, without changing the training."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtl_ext import ops
from mtl_ext.gradients import Features, TaskGradients, listed, reads_own_input, trainable
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods import Method
from mtl_ext.methods.base import check_range
from mtl_ext.metrics.similarity import cosines, gds, gms


class SimilarityMonitor:
    """Records how alike the tasks' gradients are, every n steps and whatever the method: `attach` it, or `observe`.

    What is measured at parameter and at feature level are the gradients of the losses alone, without penalties.
    ``.grad``, random generators, running statistics and the method's state stay as they are, so that training gives
    the same bits as without a monitor. What runs in every backward pass runs more often: hooks on tensors,
    `retain_grad` of tensors other than the features, and the forward pass that activation checkpointing repeats,
    BatchNorm included. A measurement costs a backward pass and the memory of a gradient per task.

    Args:
        every: steps between two measurements; the first step is measured.

    Attributes:
        step: steps seen so far.
        records: one dict of numbers per measurement: ``step`` and, where the level is known, each with the prefix
            ``parameter_`` or ``feature_``: ``gds`` and ``gms``, the mean similarities in direction and in magnitude;
            ``norm_sum``, the norm of the tasks' summed gradients, which equal weighting would step along;
            ``fd``, the feature disentanglement in nats (see :func:`mtl_ext.ops.saliency_entropy`; lower: more
            disentangled), and ``fd_zero``, the share of the positions where no task has a gradient, which count as 0
            in ``fd``; ``norm/TASK`` and ``cosine/TASK/TASK`` of each task and pair. Between features of different
            inputs similarities are undefined: only the norms are recorded. With `observe_combined` also
            ``combined_norm``.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, every: int = 10) -> None:
        check_range("every", every, 1)
        self.every = every
        self.step = 0
        self.records: list[dict[str, float]] = []
        self._method: Method | None = None

    def observe(
        self,
        losses: Losses,
        shared: Iterable[Tensor] | None = None,
        features: Features | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Counts a step and measures when it is due. Call it before the backward pass, which frees the graph.

        Args:
            losses: tensor [K], sequence of K scalars, or mapping from task to scalar; of one batch, not scaled.
            shared: the P shared parameters, for the parameter level.
            features: what the heads read, for the feature level: a tensor, several (which count as one gradient), or
                one per task. Of a model whose features are not at hand, leave it out.
            scaler: the GradScaler of mixed precision; measures are those of the gradients without its scale.

        Raises:
            ValueError: neither ``shared`` nor ``features``, or one that cannot be used.
        """
        if self.step % self.every == 0:
            self.records.append({"step": self.step, **_measure(TaskLosses(losses, scaler), shared, features)})
        self.step += 1

    def observe_combined(self, shared: Iterable[Tensor], *, scaler: torch.amp.GradScaler | None = None) -> None:
        """Adds to this step's record, if it was measured, the norm of the method's combined gradient.

        Call it after the method's backward pass, where ``.grad`` was empty before: ``combined_norm`` next to
        ``parameter_norm_sum`` tells how much longer or shorter a method's steps are than those of equal weighting.

        Args:
            shared: the shared parameters.
            scaler: see `observe`.
        """
        if self.step > 0 and (self.step - 1) % self.every == 0:
            norm = torch.nn.utils.get_total_norm([param.grad for param in shared if param.grad is not None])
            scale = 1.0 if scaler is None else scaler.get_scale()
            self.records[-1]["combined_norm"] = float(norm) / scale

    def detach(self) -> None:
        """Stops watching the method that the monitor is attached to; the records stay."""
        if self._method is not None:
            del self._method.__dict__["backward"]
            self._method = None

    def state_dict(self) -> dict[str, Any]:
        """Step and records, plain numbers, for a run that is to be resumed."""
        return {"step": self.step, "records": [dict(record) for record in self.records]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave."""
        self.step = state["step"]
        self.records = [dict(record) for record in state["records"]]


def attach(method: Method, every: int = 10, shared: Iterable[Tensor] | None = None) -> SimilarityMonitor:
    """Watches every step of a method, in anybody's loop, until the monitor's `detach`.

    The loop stays as it is: each ``method.backward(losses, shared=..., features=...)`` is measured, when due, at the
    levels that its arguments name. A loss-level method needs neither, so give ``shared`` here or pass ``features``
    there. Of a method that takes several batches the last is measured. A call that only collects a micro-batch
    (``combine=False``) is no step; the step is then measured on its last micro-batch.

    Args:
        method: any method; its state and results do not change.
        every: steps between two measurements.
        shared: the shared parameters, for calls that do not name them; the parameter level is then always measured.

    Returns:
        The monitor, whose ``records`` grow.

    Raises:
        ValueError: ``every`` is below 1, or the method has a monitor already.
    """
    if isinstance(method.__dict__.get("backward"), _Watched):
        raise ValueError(f"this {type(method).__name__} has a monitor already: detach() that first")
    monitor = SimilarityMonitor(every)
    monitor._method = method
    method.__dict__["backward"] = _Watched(method, monitor, None if shared is None else list(shared))
    return monitor


class _Watched:
    """`Method.backward` with a look at its arguments."""

    def __init__(self, method: Method, monitor: SimilarityMonitor, shared: list[Tensor] | None) -> None:
        self.method = method
        self.backward = method.backward
        self.monitor = monitor
        self.shared = shared

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the method, in memory or in a file, is not watched.
        return getattr, (self.method, "backward")

    def __call__(
        self, losses: Any, shared: Iterable[Tensor] | None = None, features: Any = None, **options: Any
    ) -> Any:
        shared = None if shared is None else list(shared)
        if options.get("combine", True):
            last = losses if self.method.batches == 1 else losses[-1]
            last_features = features if self.method.batches == 1 or features is None else features[-1]
            known = self.shared if shared is None else shared
            if known is None and features is None:
                name = type(self.method).__name__
                raise ValueError(
                    f"the monitor of {name} knows neither parameters nor features: attach it with "
                    "shared=<shared parameters>, or call backward with features=<what the heads read>"
                )
            self.monitor.observe(last, known, last_features, scaler=options.get("scaler"))
        return self.backward(losses, shared, features, **options)


def _measure(losses: TaskLosses, shared: Iterable[Tensor] | None, features: Features | None) -> dict[str, float]:
    """The measures at both levels; one backward pass per task gives the gradients of either."""
    if shared is None and features is None:
        raise ValueError("observe needs shared=<shared parameters> or features=<what the heads read>, or both")
    params = [] if shared is None else trainable(shared)
    boundary = [] if features is None else listed(features, losses)
    at_params, at_features = TaskGradients(params, losses), TaskGradients(boundary, losses)
    retained = [(z, z.grad) for z in boundary if z.retains_grad]
    for k, (name, loss) in enumerate(zip(losses.names, losses.tensors, strict=True)):
        inputs, cotangent = [*boundary, *params], losses.cotangent(k)
        grads = torch.autograd.grad(loss, inputs, cotangent, retain_graph=True, allow_unused=True)
        at_features.add_task(name, grads[: len(boundary)], allow_unused=True)
        at_params.add_task(name, grads[len(boundary) :], allow_unused=True)
    for z, earlier in retained:
        z.grad = earlier
    measures: dict[str, float] = {}
    if params:
        measures |= _similarities("parameter", at_params)
    if features is not None:
        own_input = reads_own_input(features, at_features)
        measures |= _norms("feature", at_features) if own_input else _similarities("feature", at_features)
    return measures


def _norms(level: str, gradients: TaskGradients) -> dict[str, float]:
    norms = gradients.gram().diagonal().sqrt().tolist()
    return {f"{level}_norm/{key}": norm for key, norm in zip(gradients.losses.keys, norms, strict=True)}


def _similarities(level: str, gradients: TaskGradients) -> dict[str, float]:
    count = len(gradients.targets)
    reached = [any(grad.numel() > 0 for grad in gradients.tensors[p::count]) for p in range(count)]
    if not any(reached):
        raise ValueError(
            f"no loss reaches what was given for the {level} level: pass tensors that the losses' graphs contain (a "
            "model compiled as a whole hides its features)"
        )
    positions = sum(target.numel() for target, found in zip(gradients.targets, reached, strict=True) if found)
    gram, keys = gradients.gram(), gradients.losses.keys
    entropy, zero_columns = ops.saliency_entropy(gradients.tensors, len(keys))
    zero = float(zero_columns) / positions
    measures = {"gds": gds(gram), "gms": gms(gram), "fd": float(entropy), "fd_zero": zero}
    measures["norm_sum"] = float(gram.sum().clamp(min=0.0).sqrt())
    matrix = cosines(gram).tolist()
    for i, first in enumerate(keys):
        measures |= {f"cosine/{first}/{keys[j]}": matrix[i][j] for j in range(i + 1, len(keys))}
    return {f"{level}_{name}": value for name, value in measures.items()} | _norms(level, gradients)
