"""Auto-lambda: weights that lower the loss after the step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl_ext.bilevel import hypergradient
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import check_choice, check_range, chosen_tasks, task_indices, task_values
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import Adam


class AutoLambda(LossMethod):
    """Auto-lambda (Liu et al. 2022): weights that lower the primary tasks' loss on other data after the step.

    Bilevel: before every step a virtual one, ``params' = params - lr d(sum_k w_k L_k)`` in the optimizer's form, is
    tried, and Adam moves the weights along the gradient of ``sum_primary L_meta(params')`` by w. With all tasks primary
    it is the multi-task form; with some, the auxiliary form, where the others are weighed by what they do for these.
    One line more in a training loop, before the forward pass::

        method.update_weights(lambda: losses(batch), lambda: losses(meta_batch), model, optimizer)
        method.backward(losses(batch))

    where ``losses(batch)`` calls the model and gives the K losses. Without that line the weights stay as they start.
    The meta batch comes from the training data in another order (the published code) or from data held out. The step
    costs three forward and backward passes and a forward-mode pass (or, with ``"fd"``, two forward passes).

    The published code has ``virtual_step="sgd"`` and ``mode="fd"``, which is 1e-2 off on ReLU networks; lr 1e-4 on
    NYUv2, 3e-5 on Cityscapes, 3e-4 on CIFAR-100. There BatchNorm's running statistics and the random numbers of dropout
    also follow the virtual passes, here only the real one.

    Args:
        num_tasks: K.
        primary: name or index of the primary task, or several; by default all.
        initial: the weights at the start, one number or K.
        lr: Adam's learning rate for the weights.
        mode: ``"jvp"``, the exact gradient, or ``"fd"``, the paper's finite difference, for networks with operators
            that have no forward-mode formula.
        virtual_step: ``"own"``, the optimizer's own step, whatever it is, or ``"sgd"``; see
            :class:`mtl_ext.bilevel.VirtualStep`.
        shared_step: share the real step's gradient with the virtual step, which saves a forward and a backward pass on
            the training batch: ``update_weights`` is called after ``backward``, before the optimizer's step, and the
            weights that it finds count from the next step on. Dropout is drawn anew for it.
        nonnegative: keep the weights from falling below 0, where a step would raise that task's loss (ours: in the
            published code they may).
        reduction: ``"sum"`` as above, or ``"mean"``: divided by K, in the virtual step, too.
        nonfinite: see `Method`; a bad loss of the virtual passes counts, and never reaches the weights.

    Attributes:
        weights: [K] float64. Not parameters: the method moves them itself.
    """

    bilevel = True
    weights: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        primary: str | int | Sequence[str | int] | None = None,
        initial: float | Sequence[float] = 0.1,
        lr: float = 1e-4,
        mode: str = "jvp",
        virtual_step: str = "own",
        shared_step: bool = False,
        nonnegative: bool = False,
        reduction: str = "sum",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("lr", lr, 0.0)
        check_choice("mode", mode, ("jvp", "fd"))
        check_choice("virtual_step", virtual_step, ("own", "sgd"))
        initial = [initial] * num_tasks if isinstance(initial, (int, float)) else initial
        self.primary = None if primary is None else chosen_tasks("primary", primary, num_tasks)
        self.mode = mode
        self.virtual_step = virtual_step
        self.shared_step = shared_step
        self.nonnegative = nonnegative
        self.register_buffer("weights", task_values("initial", initial, num_tasks))
        self.adam = Adam(num_tasks, lr=lr)

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted sum."""
        return self.weights @ losses

    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Moves the weights, see `Method.update_weights`; the meta losses may be those of the primary tasks alone.

        Raises:
            ValueError: an argument cannot be used, or `primary` names no meta loss.
            NonFiniteError: a loss is not finite, see ``nonfinite``.
            RuntimeError: an operator of the model has no forward-mode formula: take ``mode="fd"``.
        """
        if self.shared_step and self.nonfinite == "skip" and all(p.grad is None for p in model.parameters()):
            return  # backward has left the step out
        factor = self.reduction_factor(len(self.weights))
        found = hypergradient(
            train_losses,
            meta_losses,
            model,
            optimizer,
            None if self.shared_step else factor * self.weights,
            meta_weights=self._primary_ones,
            mode=self.mode,
            virtual_step=self.virtual_step,
        )
        if any(self._skips(losses) for losses in found.losses):
            return
        self.adam.step(self.weights, factor * found.gradient)
        if self.nonnegative:
            self.weights.clamp_(min=0.0)

    def _primary_ones(self, meta: TaskLosses) -> Tensor:
        """1 for the primary tasks, 0 for others."""
        if self.primary is None:
            return torch.ones_like(meta.values)
        ones = torch.zeros_like(meta.values)
        ones[task_indices("primary", self.primary, meta.keys)] = 1.0
        return ones
