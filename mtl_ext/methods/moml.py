"""MOML: weights that lower every task's loss on other data after the step."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mtl_ext import ops
from mtl_ext.bilevel import chain_rule, hyperjacobian
from mtl_ext.losses import Losses
from mtl_ext.methods.base import check_choice, check_range
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import Adam


class MOML(LossMethod):
    """Multi-objective meta learning (Ye et al. 2021): weights that lower every meta loss after the step.

    Multi-objective bilevel, with weights ``softmax(a)``. Before every step a virtual one is tried, in the optimizer's
    form, ``params' = params - lr d(sum_k softmax(a)_k L_k)``. Each meta loss there gives a row, its gradient by a. The
    rows are divided by their norms, and Adam moves a along their convex combination of minimum norm (`MGDA`), the
    direction in which all meta losses fall alike. Where they conflict so that it is 0, a stays, as it nearly always
    does with two tasks that are both meta losses. The call is that of `AutoLambda`, one line more in a training loop::

        method.update_weights(lambda: losses(batch), lambda: losses(meta_batch), model, optimizer)
        method.backward(losses(batch))

    Without that line the weights stay as they start, equal. The meta batch comes from the training data in another
    order or from data held out. A step costs three forward and two backward passes, and K times a backward pass and a
    forward-mode pass (or, with ``"fd"``, two forward passes), in the memory of one gradient.

    Peers differ: LibMTL keeps the K gradients of both batches, steps virtually by plain gradient descent with a rate of
    its own (``inner_lr``), halves the batches and ends Frank-Wolfe's iteration early; its defaults do not run (it wants
    ``inner_step`` 1, and has 5). The authors' code divides by the meta losses' values instead of the norms.

    Args:
        num_tasks: K.
        lr: Adam's learning rate for a; LibMTL's 1e-3 (the authors' code has 1e-4 on NYUv2).
        mode: ``"jvp"``, exact rows, or ``"fd"``, a finite difference, for networks with operators that have no
            forward-mode formula.
        virtual_step: ``"own"``, the optimizer's own step, whatever it is, or ``"sgd"``; see
            :class:`mtl_ext.bilevel.VirtualStep`.
        reduction: ``"mean"``, weights that sum to 1, or ``"sum"``: times K, in the virtual step, too.
        nonfinite: see `Method`; a bad loss of the virtual passes counts, and never reaches the weights.

    Attributes:
        logits: a, [K] float64, start at 0. Not parameters: the method moves them itself.
    """

    formula_gives = "mean"
    bilevel = True
    logits: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        lr: float = 1e-3,
        mode: str = "jvp",
        virtual_step: str = "own",
        reduction: str = "mean",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("lr", lr, 0.0)
        check_choice("mode", mode, ("jvp", "fd"))
        check_choice("virtual_step", virtual_step, ("own", "sgd"))
        self.mode = mode
        self.virtual_step = virtual_step
        self.register_buffer("logits", torch.zeros(num_tasks, dtype=torch.float64))
        self.adam = Adam(num_tasks, lr=lr)

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return self.logits.softmax(0) @ losses

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Moves the weights, see `Method.update_weights`; there may be more or fewer meta losses than tasks.

        Raises:
            ValueError: an argument cannot be used.
            NonFiniteError: a loss is not finite, see ``nonfinite``.
            RuntimeError: an operator of the model has no forward-mode formula: take ``mode="fd"``.
        """
        found = hyperjacobian(
            train_losses,
            meta_losses,
            model,
            optimizer,
            self._weights(self.logits),
            mode=self.mode,
            virtual_step=self.virtual_step,
        )
        if any(self._skips(losses) for losses in found.losses):
            return
        rows = torch.stack([chain_rule(self._weights, self.logits, row) for row in found.gradient])
        norms = rows.norm(dim=1, keepdim=True)
        rounding = torch.finfo(rows.dtype).eps * found.gradient.norm(dim=1, keepdim=True)
        rows = torch.where(norms <= len(rows) * rounding, 0.0, rows / norms)  # whom no weight changes, is left out
        shares, _, _ = ops.min_norm(rows @ rows.T)
        self.adam.step(self.logits, shares @ rows)

    def _weights(self, logits: Tensor) -> Tensor:
        """What multiplies the losses, ``reduction`` included."""
        return self.reduction_factor(len(logits)) * logits.softmax(0)
