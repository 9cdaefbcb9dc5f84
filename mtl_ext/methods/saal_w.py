"""SAAL_w: self-auxiliary tasks whose weights are learnt."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl_ext.bilevel import chain_rule, hypergradient
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import check_choice, check_num_tasks, check_range
from mtl_ext.methods.saal_e import SAALe, target_indices, target_sums
from mtl_ext.methods.state import Adam
from mtl_ext.task_names import is_primary

# The least step of the finite difference, relative to the largest learning rate: schedules end at 0.
LEAST_STEP = 1e-3


class SAALw(SAALe):
    """SAAL_w (Graffeuille et al., Eq. 6-11): weights that lower the primary tasks' loss on other data after the step.

    The weights v of `SAALe` with w learnt, all w starting at 1 / (number of primary tasks). Bilevel: before every step
    a virtual one is tried, ``params' = params - lr d(sum_k v_k L_k)`` in the optimizer's form, and Adam moves w along
    the gradient of ``sum_primary L_meta(params')``, unweighted, by w: the chain rule goes through Eq. 11. A weight is
    kept from falling below 0; a task whose weight is 0 is not trained in that step, and rises when its gradient says
    so. One line more in a training loop, before the forward pass::

        method.update_weights(lambda: losses(batch), lambda: losses(meta_batch), model, optimizer)
        method.backward(losses(batch))

    where ``losses(batch)`` gives all K losses, and ``losses(meta_batch)`` those of the primary tasks, or more.

    With self-auxiliaries for the pairs that enumeration found useful, and no others, it is SAAL_ew. The paper has
    ``mode="fd"``, and in Eq. 9 lost the factor ``-lr`` of Eq. 8: descent along it as printed would raise harmful tasks.

    Args:
        num_tasks: K, primary and self-auxiliary tasks together.
        tasks: names of the K losses, for a loop that passes them without names.
        lr: Adam's learning rate for w.
        mode: ``"jvp"``, the exact gradient, or ``"fd"``, the paper's finite difference, for networks with operators
            that have no forward-mode formula.
        fd_step: how far the finite difference goes from the parameters: ``"lr"``, by the gradient of the meta loss
            times the learning rate (the paper; at least 1e-3 of the largest learning rate so far, of the optimizer's
            first group), or ``"norm"``, by 0.01 in all (Auto-lambda).
        virtual_step: ``"own"``, the optimizer's own step, whatever it is, or ``"sgd"``; see
            :class:`mtl_ext.bilevel.VirtualStep`.
        shared_step: share the real step's gradient with the virtual step, which saves a forward and a backward pass on
            the training batch: ``update_weights`` is called after ``backward``, before the optimizer's step, and the
            weights that it finds count from the next step on. Dropout is drawn anew for it.
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K, in the virtual step, too.
        nonfinite: see `Method`; a bad loss of the virtual passes counts, and never reaches the weights.

    Attributes:
        weights: [K] float64, w; 1 before the first update. Not parameters: the method moves them itself.
    """

    bilevel = True
    leaves_out_zeros = True
    largest_lr: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        tasks: Sequence[str] | None = None,
        lr: float = 1e-4,
        mode: str = "jvp",
        fd_step: str = "lr",
        virtual_step: str = "own",
        shared_step: bool = False,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks, tasks=tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("lr", lr, 0.0)
        check_choice("mode", mode, ("jvp", "fd"))
        check_choice("fd_step", fd_step, ("lr", "norm"))
        check_choice("virtual_step", virtual_step, ("own", "sgd"))
        self.mode = mode
        self.fd_step = fd_step
        self.virtual_step = virtual_step
        self.shared_step = shared_step
        self.adam = Adam(num_tasks, lr=lr)
        self.register_buffer("largest_lr", torch.zeros((), dtype=torch.float64))

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Moves the weights, see `Method.update_weights`; the meta losses may be those of the primary tasks alone.

        Raises:
            ValueError: an argument cannot be used, losses have no names, or no meta loss is a primary task's.
            NonFiniteError: a loss is not finite, see ``nonfinite``.
            RuntimeError: an operator of the model has no forward-mode formula: take ``mode="fd"``.
        """
        if self.shared_step and self.nonfinite == "skip" and all(p.grad is None for p in model.parameters()):
            return  # backward has left the step out
        factor = self.reduction_factor(len(self.weights))

        def applied(train: TaskLosses) -> Tensor:
            check_num_tasks(len(train), len(self.weights))
            return factor * self._shares(self.weights, self._names("train_losses", train))

        found = hypergradient(
            train_losses,
            meta_losses,
            model,
            optimizer,
            None if self.shared_step else applied,
            meta_weights=self._primary_ones,
            mode=self.mode,
            virtual_step=self.virtual_step,
            eps=self._eps(optimizer),
        )
        if any(self._skips(losses) for losses in found.losses):
            return
        names = self._last if found.train is None else self._names("train_losses", found.train)
        self._start(names)
        gradient = chain_rule(lambda weights: factor * self._shares(weights, names), self.weights, found.gradient)
        self._move(gradient, target_indices(names).to(self.weights.device))

    def _start(self, names: tuple[str, ...]) -> None:
        """Before the first step, scales all weights to 1 / (number of primary tasks), which changes no share."""
        primary = sum(map(is_primary, names))
        self.weights.copy_(torch.where(self.adam.steps == 0, self.weights / primary, self.weights))

    def _move(self, gradient: Tensor, targets: Tensor) -> None:
        """Adam's step; a target all of whose weights would be 0 keeps those it has."""
        before = self.weights.clone()
        self.adam.step(self.weights, gradient)
        self.weights.clamp_(min=0.0)
        self.weights.copy_(torch.where(target_sums(self.weights, targets) > 0, self.weights, before))

    def _primary_ones(self, meta: TaskLosses) -> Tensor:
        """1 for the primary tasks, 0 for the others."""
        primary = [is_primary(name) for name in self._names("meta_losses", meta)]
        if not any(primary):
            raise ValueError(f"meta_losses has the tasks {meta.keys}, expected the primary tasks among them")
        return torch.tensor(primary).to(meta.values)

    def _eps(self, optimizer: torch.optim.Optimizer) -> float | None:
        """How far the finite difference goes, in units of the virtual step's share of the meta loss's gradient."""
        lr = float(optimizer.param_groups[0]["lr"])
        self.largest_lr.clamp_(min=lr)
        if self.fd_step == "norm" or lr == 0:
            return None
        return max(1.0, LEAST_STEP * float(self.largest_lr) / lr)
