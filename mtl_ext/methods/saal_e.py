"""SAAL_e: self-auxiliary tasks, each target's together as important as one task."""

import functools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from mtl_ext.gradients import Features
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import StepOptions, check_num_tasks
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.task_names import is_primary, split_name


class SAALe(LossMethod):
    """SAAL_e (Graffeuille et al., Eq. 5 and 11): a task and the self-auxiliaries that train its path share weight 1.

    The self-auxiliary ``s->t`` of source s and target t trains the path of t on the labels of s
    (:class:`mtl_ext.models.SelfAuxiliaries`). Minimises ``sum_t (v_t L_t + sum_s v_st L_st)`` with
    ``v_t = w_t / (w_t + sum_s w_st)``, ``v_st = w_st / (the same)`` and all w 1. Enumeration says which
    self-auxiliaries are built (:func:`mtl_ext.relationships.self_auxiliary_pairs`); the others have no loss. Which loss
    is which is known from the names: ``"depth"`` is a primary task, ``"normals->depth"`` a self-auxiliary of it.

    Args:
        num_tasks: K, primary and self-auxiliary tasks together.
        tasks: names of the K losses, for a loop that passes them without names.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K.
        nonfinite: see `Method`.

    Attributes:
        weights: [K] float64, w.
    """

    weights: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        tasks: Sequence[str] | None = None,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        self.tasks = None if tasks is None else tuple(tasks)
        if self.tasks is not None:
            if len(set(self.tasks)) != num_tasks:
                raise ValueError(f"tasks is {tasks!r}, expected {num_tasks} different names, one per loss")
            target_indices(self.tasks)
        self.register_buffer("weights", torch.ones(num_tasks, dtype=torch.float64))
        self._last: tuple[str, ...] = ()

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The sum with the normalised weights, for the tasks of the last `backward`."""
        return self._shares(self.weights, self._last) @ losses

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        found = TaskLosses(losses)
        check_num_tasks(len(found), len(self.weights))
        self._last = self._names("losses", found)
        return super()._step(losses, shared, features, options)

    def _shares(self, weights: Tensor, names: tuple[str, ...]) -> Tensor:
        """Eq. 11 for weights [K] of the tasks of some names."""
        return normalised(weights, target_indices(names).to(weights.device))

    def _names(self, name: str, losses: TaskLosses) -> tuple[str, ...]:
        """The names of all tasks, or of some.

        Raises:
            ValueError: the losses have none, and ``tasks`` does not give them.
        """
        named = tuple(key for key in losses.keys if isinstance(key, str))
        if named:
            return named
        if self.tasks is None or len(self.tasks) != len(losses):
            raise ValueError(
                f"{name} has no names, by which {type(self).__name__} knows the target of each: pass a mapping from "
                "task to loss, a self-auxiliary task being called 'SOURCE->TARGET', or give the names of all as tasks="
            )
        return self.tasks


@functools.lru_cache(maxsize=64)
def target_indices(names: tuple[str, ...]) -> Tensor:
    """The position of each task's target among the tasks, [K] int64: of a primary task, its own.

    Raises:
        ValueError: a target is no primary task of these.
    """
    for name in names:
        _, target = split_name(name)
        if target not in names or not is_primary(target):
            primary = ", ".join(filter(is_primary, names)) or "none"
            raise ValueError(f"task {name!r} is a self-auxiliary of {target!r}, expected one of the primary: {primary}")
    return torch.tensor([names.index(split_name(name)[1]) for name in names])


def normalised(weights: Tensor, targets: Tensor) -> Tensor:
    """Eq. 11: each weight divided by the sum of those with the same target.

    Args:
        weights: [K], at least 0, and not all 0 of any target.
        targets: [K] int64, see `target_indices`.
    """
    return weights / target_sums(weights, targets)


def target_sums(weights: Tensor, targets: Tensor) -> Tensor:
    """For each task, the sum of the weights that have the same target, [K]."""
    return torch.zeros_like(weights).index_add(0, targets, weights)[targets]
