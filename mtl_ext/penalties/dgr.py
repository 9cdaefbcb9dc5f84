"""DGR: a penalty on the gradients of dummy heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl_ext.losses import TaskLosses
from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.penalties.dummy_heads import DummyHeads, tensors_of
from mtl_ext.penalties.finite_difference import FiniteDifference
from mtl_ext.penalties.norm_gradient import BatchNorms, Evaluation
from mtl_ext.penalties.sample_norms import SampleNorms
from mtl_ext.penalty import Cotangent

LossFunction = Callable[[Tensor, Tensor], Tensor]


class DGR(nn.Module):
    """Dummy gradient norm regularisation (Shin, Do & Son 2024): features that random heads do well with.

    For each task k and each of D fixed, random dummy heads ``h`` with the architecture of its prediction head, adds
    ``strength * |grad_h L_k(h(z), y_k)|`` to the task's loss, as a mean over the dummies (Eq. 5). It trains what stands
    before the head: real heads get no gradient from it, and dummies never change. In one's own loop::

        dgr = DGR({task: model.head(task) for task in tasks}, loss_functions, strength=1e-6)
        z = model.features(x)  # and the losses, as ever
        method.backward(losses, shared=model.shared_parameters(), penalties=[dgr(z, targets)])

    A call makes the penalty of one batch, for any method and any level (see :mod:`mtl_ext.penalties`). It needs no pass
    through the trunk of its own. The norms go with the loss's own reduction, which is taken for a mean over the batch;
    the paper's sums are B times these.

    Args:
        heads: task -> prediction head, or a sequence for losses without names; what the dummies are copies of. Only
            read. Tasks may be left out: they have no penalty.
        losses: task -> loss function (output, target) -> scalar, a mean over the batch; likewise.
        strength: the paper's lambda, at least 0; it searches 1e-5, 1e-6 and 1e-7.
        dummies: D, per task.
        reduction: ``"batch"``: the norm of the batch's gradient (Eq. 5). ``"sample"``: the mean over samples of the
            norms of each one's gradient (Algorithm 1, line 8); only with ``mode="exact"``, for heads that do not couple
            the samples (no batch normalisation) and losses that torch.vmap can map. A sample's loss is that of a batch
            of one.
        dummy_reduction: ``"mean"`` over the dummies, so that `strength` keeps its meaning, or ``"sum"``.
        mode: how the norm is differentiated by the features. ``"exact"``: double backward through the dummies.
            ``"finite_difference"``: as in the paper, but with the activation pattern held, and with a step of its own,
            see `FiniteDifference`; for heads with layers that have no second derivative. It computes in the dummies'
            own precision, also under autocast.
        seed: of the dummies' parameters, drawn on the CPU in the order of the tasks, for each dummy by dummy.

    Attributes:
        dummies: the dummy heads; they are part of the ``state_dict``, so that a resumed run has the same.
        norms: task -> the norms [D] of the last step (of samples, their mean), detached, before `strength`.

    Raises:
        TypeError: a layer of a head has no ``reset_parameters``.
        ValueError: an option has no such value; heads and losses of different tasks; a head without parameters, or with
            batch normalisation where ``reduction="sample"``.
    """

    def __init__(
        self,
        heads: Mapping[str, nn.Module] | Sequence[nn.Module],
        losses: Mapping[str, LossFunction] | Sequence[LossFunction],
        *,
        strength: float,
        dummies: int = 3,
        reduction: str = "batch",
        dummy_reduction: str = "mean",
        mode: str = "exact",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_range("strength", strength, 0.0)
        check_range("dummies", dummies, 1)
        check_choice("reduction", reduction, ("batch", "sample"))
        check_choice("dummy_reduction", dummy_reduction, ("mean", "sum"))
        check_choice("mode", mode, ("exact", "finite_difference"))
        if (reduction, mode) == ("sample", "finite_difference"):
            raise ValueError("reduction is 'sample', which is computed exactly only: expected mode='exact'")
        named, self.losses = _by_task(heads), _by_task(losses)
        if list(named) != list(self.losses) or not named:
            raise ValueError(f"heads has the tasks {list(named)}, losses {list(self.losses)}: expected the same")
        self.strength = strength
        self.reduction = reduction
        self.dummy_reduction = dummy_reduction
        self.mode = mode
        self.norms: dict[str | int, Tensor] = {}
        self.dummies = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the devices, too
            for task, head in named.items():
                if "." in str(task):
                    raise ValueError(f"task {task!r} has a dot in its name, which torch cannot take: rename it")
                self.dummies[str(task)] = DummyHeads(head, dummies)
        exact = SampleNorms if reduction == "sample" else BatchNorms
        maker: Any = exact if mode == "exact" else FiniteDifference
        self._gradients = {task: maker(self.dummies[str(task)], loss) for task, loss in self.losses.items()}

    def forward(self, inputs: Any, targets: Mapping[str, Any] | Sequence[Any], factor: Any = 1.0) -> "DGRTerm":
        """The penalty of one batch.

        Args:
            inputs: what the heads read, with its graph: one for all tasks (the features; a sequence of tensors where
                heads read several), or task -> its own. For MTAN ``{task: model.head_features(z, task)}``, the very
                tensors that went into the heads.
            targets: task -> target, as the losses take it.
            factor: what the losses were multiplied by, for example 1 / n with n micro-batches whose gradients are
                added; a number, or task -> number.

        Returns:
            What ``penalties=`` takes. The autocast that is on at this call holds for the dummies; outside of it,
            inputs of lower precision than the dummies put it on.
        """
        by_task = {task: inputs[task] if isinstance(inputs, Mapping) else inputs for task in self.losses}
        for task, given in by_task.items():
            for tensor in tensors_of(given):
                if not tensor.requires_grad:
                    raise ValueError(f"the inputs of task {task!r} do not require grad: pass what the head read")
        its_targets = _by_task(targets)
        factors = {task: factor[task] if isinstance(factor, Mapping) else factor for task in self.losses}
        return DGRTerm(self, by_task, {task: its_targets[task] for task in self.losses}, factors, _autocast(by_task))


@dataclass(frozen=True)
class DGRTerm:
    """DGR's penalty of one batch, see `DGR.forward`."""

    dgr: DGR
    inputs: Mapping[str | int, Any]
    targets: Mapping[str | int, Any]
    factors: Mapping[str | int, float]
    autocast: tuple[str, torch.dtype | None]

    def cotangents(self, losses: TaskLosses) -> list[list[Cotangent]]:
        """The norms' gradients with respect to what the heads read, see :class:`mtl_ext.penalty.Penalty`.

        Raises:
            ValueError: a task is not among the losses.
        """
        unknown = [task for task in self.inputs if task not in losses.keys]
        if unknown:
            raise ValueError(f"DGR has the task {unknown[0]!r}, losses has the tasks {losses.keys}")
        return [self._of_task(key, losses.scale) if key in self.inputs else [] for key in losses.keys]

    def _of_task(self, task: str | int, scale: Tensor | None) -> list[Cotangent]:
        dgr, inputs = self.dgr, self.inputs[task]
        evaluation = Evaluation(inputs, self.targets[task], self.autocast, scale)
        norms, grads = dgr._gradients[task](evaluation)
        dgr.norms[task] = norms
        strength = dgr.strength * self.factors[task] / (len(norms) if dgr.dummy_reduction == "mean" else 1)
        pairs = zip(tensors_of(inputs), grads, strict=True)
        return [(tensor, (strength * grad).to(tensor.dtype)) for tensor, grad in pairs if grad is not None]


def _by_task(given: Mapping[str, Any] | Sequence[Any]) -> dict[str | int, Any]:
    return dict(given.items() if isinstance(given, Mapping) else enumerate(given))


def _autocast(inputs: Mapping[str | int, Any]) -> tuple[str, torch.dtype | None]:
    """Device type and dtype of the autocast that dummies are to be evaluated under; None: of none."""
    first = tensors_of(next(iter(inputs.values())))[0]
    kind = first.device.type
    if torch.is_autocast_enabled(kind):
        return kind, torch.get_autocast_dtype(kind)
    return kind, first.dtype if first.dtype in (torch.bfloat16, torch.float16) else None
