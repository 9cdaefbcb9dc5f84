"""FORUM: bilevel steps of first order, of the weights and the parameters at once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtl_ext import ops
from mtl_ext.bilevel import LossFn, chain_rule, losses_at, trainable_parameters, weighted_gradient
from mtl_ext.gradients import Features
from mtl_ext.losses import Losses, TaskLosses
from mtl_ext.methods.base import StepOptions, check_num_tasks, check_range, raise_nonfinite
from mtl_ext.methods.loss_method import LossMethod
from mtl_ext.methods.state import Adam
from mtl_ext.ops.simplex import simplex_minimum


@dataclass(frozen=True)
class _Plan:
    """What the coming step descends: ``train_weights`` times the training losses, plus ``<direction, params>``.

    Attributes:
        train_weights: [K], ``nu softmax(a)``.
        directions: (parameter, its part of ``sum_k m_k F_k``).
    """

    train_weights: Tensor
    directions: list[tuple[nn.Parameter, Tensor]]


class FORUM(LossMethod):
    """FORUM (Ye et al. 2024): lower all meta losses, with the weighted training loss kept near its minimum.

    Multi-objective bilevel without second derivatives. With ``f(a, params) = sum_k softmax(a)_k L_k`` on the training
    batch, ``params_T`` found by T steps of gradient descent on f, and ``q = f(a, params) - f(a, params_T)`` with
    ``params_T`` held, a step goes along ``sum_k m_k F_k + nu grad q``. F_k is the gradient of meta loss k by the
    parameters, divided by its norm (its part for a is 0). Let pi_k be ``phi - <grad q, F_k> / ||grad q||^2``: with
    ``nu = max(0, sum_k m_k pi_k)``, q falls at least at the rate ``phi ||grad q||^2``. m is a running average of the
    minimum over the simplex of ``||sum_k m_k F_k + nu grad q||^2 - nu phi ||grad q||^2`` (here exact), in which a new
    one has the weight ``(t + 1)^(-3/4)`` in epoch t = 0, 1, ...: tell the method of epochs by `end_epoch`.

    The call is that of `AutoLambda`, one line more in a training loop::

        method.update_weights(lambda: losses(batch), lambda: losses(meta_batch), model, optimizer)
        method.backward(losses(batch))

    The first finds nu and m, and moves a by Adam. The second adds the parameters' part of the step to their ``.grad``
    and returns ``nu softmax(a)``, the training losses' weights; every call until the next `update_weights` does, so
    that micro-batches average to the step of the large batch. Where the meta losses alone make q fall fast enough, nu
    is 0, which is frequent where meta batches are training data: the step then lowers the meta losses by the weights m,
    a stays, and the weights that `backward` returns are 0. Without the first line it is a descent of f.

    A step costs T + 1 forward and backward passes and one more forward pass on the training batch, and on the meta
    batch a forward and K backward passes, whose K gradients are held meanwhile.

    LibMTL and the authors' code differ in this: they stop the T steps where f exceeds 1e5 (here what is not finite
    counts as a bad loss), add 1e-8 to ``||grad q||^2``, divide a zero gradient of a meta loss by 0 or 1e-8 (here that
    loss gets no share), and train on the BatchNorm statistics of several passes.

    Args:
        num_tasks: K, of the training losses and of the meta losses.
        phi: rate at which q has to fall, see above.
        inner_steps: T.
        inner_lr: learning rate of the T steps.
        lr: Adam's learning rate for a.
        reduction: ``"mean"`` as above, weights that sum to nu; or ``"sum"``: the step of the parameters times K.
        nonfinite: see `Method`. A bad loss of `update_weights`, or gradient, changes neither a nor m. With ``"skip"``
            the step then adds nothing to any ``.grad`` and the weights are 0, with ``"propagate"`` they are NaN.

    Attributes:
        logits: a, [K] float64, start at 0. Not parameters: the method moves them itself.
        shares: m, [K] float64.
        epoch: epochs that are over, float64.
    """

    formula_gives = "mean"
    bilevel = True
    logits: Tensor
    shares: Tensor
    epoch: Tensor

    def __init__(
        self,
        num_tasks: int,
        *,
        phi: float = 0.1,
        inner_steps: int = 5,
        inner_lr: float = 0.1,
        lr: float = 1e-3,
        reduction: str = "mean",
        nonfinite: str = "raise",
    ) -> None:
        super().__init__(num_tasks=num_tasks, reduction=reduction, nonfinite=nonfinite)
        check_range("phi", phi, 0.0)
        check_range("inner_steps", inner_steps, 1)
        check_range("inner_lr", inner_lr, 0.0, open_low=True)
        check_range("lr", lr, 0.0)
        self.phi = phi
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.register_buffer("logits", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("shares", torch.zeros(num_tasks, dtype=torch.float64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.float64))
        self.adam = Adam(num_tasks, lr=lr)
        self._plan: _Plan | None = None
        self._left_out = False

    def combined_loss(self, losses: Tensor) -> Tensor:
        """The weighted training losses, plus what is linear in the parameters and has the rest of the step as slope."""
        if self._plan is None:
            return self.logits.softmax(0) @ losses
        loss = self._plan.train_weights @ losses
        for param, direction in self._plan.directions:
            loss = loss + (param * direction).sum().to(loss)
        return loss

    @torch.enable_grad()
    def update_weights(
        self,
        train_losses: Callable[[], Losses],
        meta_losses: Callable[[], Losses],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Plans the step and moves a, see `Method.update_weights`; the optimizer is not looked at.

        Raises:
            ValueError: an argument cannot be used.
            NonFiniteError: a loss or gradient is not finite, see ``nonfinite``.
        """
        self._plan, self._left_out = None, False
        params, weights = trainable_parameters(model), self.logits.softmax(0)
        slope, before, after = self._inner_descent(train_losses, model, params, weights)
        meta, grads = self._meta_gradients(meta_losses, model, params)
        gram = ops.gram([*grads, *slope], len(meta) + 1)
        if self._usable(gram, before, after, meta):
            self._plan = self._planned(params, weights, grads, gram, before.values - after.values)
        elif self.nonfinite == "skip":
            self._left_out = True
        else:
            self._plan = _Plan(torch.full_like(weights, torch.nan), [])

    def end_epoch(self) -> None:
        """The running average goes slower from epoch to epoch."""
        self.epoch += 1

    def _step(
        self, losses: Losses, shared: Iterable[Tensor] | None, features: Features | None, options: StepOptions
    ) -> Tensor:
        """One backward pass, unless the step is to be left out."""
        if self._left_out:
            return torch.zeros_like(TaskLosses(losses).values)
        return super()._step(losses, shared, features, options)

    def _inner_descent(
        self, train_losses: LossFn, model: nn.Module, params: Mapping[str, Tensor], weights: Tensor
    ) -> tuple[list[Tensor], TaskLosses, TaskLosses]:
        """The gradient of f by P parameters, empty where it has none; the training losses before and after T steps."""
        first = losses = TaskLosses(losses_at(train_losses, model, params))
        check_num_tasks(len(first), len(weights))
        slope: list[Tensor] = []
        for _ in range(self.inner_steps):
            tensors = list(params.values())
            grads = _present(weighted_gradient("train_losses", losses.tensors, weights, tensors), tensors)
            slope = slope or grads
            moved = [
                (tensor.detach() - self.inner_lr * grad).requires_grad_() if grad.numel() else tensor
                for tensor, grad in zip(tensors, grads, strict=True)
            ]
            params = dict(zip(params, moved, strict=True))
            losses = TaskLosses(losses_at(train_losses, model, params))
        return slope, first, losses

    def _meta_gradients(
        self, meta_losses: LossFn, model: nn.Module, params: Mapping[str, Tensor]
    ) -> tuple[TaskLosses, list[Tensor]]:
        """The meta losses, and their K * P gradients, task-major, empty where they have none."""
        meta, tensors = TaskLosses(losses_at(meta_losses, model, params)), list(params.values())
        if len(meta) != len(self.logits):
            raise ValueError(f"meta_losses gave {len(meta)} losses, expected num_tasks = {len(self.logits)}")
        grads, one = [], torch.ones(1, dtype=torch.float64)
        for later, loss in zip(reversed(range(len(meta))), meta.tensors, strict=True):
            found = weighted_gradient("meta_losses", [loss], one, tensors, retain_graph=later > 0)
            grads += _present(found, tensors)
        return meta, grads

    def _usable(self, gram: Tensor, before: TaskLosses, after: TaskLosses, meta: TaskLosses) -> bool:
        """Whether all losses and gradients are finite; raises where that is asked for."""
        if self.nonfinite == "raise":
            for losses, text in (
                (before, "{} is {}"),
                (after, "{} is {} after the inner steps: lower inner_lr"),
                (meta, "{} is {} on the meta batch"),
            ):
                raise_nonfinite(losses.values.cpu(), losses.names, text)
            names = [*(f"meta {name}" for name in meta.names), "the weighted training loss"]
            raise_nonfinite(gram.diagonal().cpu(), names, "the gradient of {} has squared norm {}")
        values = torch.cat([gram.flatten(), before.values, after.values, meta.values])
        return bool(values.isfinite().all())

    def _planned(
        self, params: Mapping[str, nn.Parameter], weights: Tensor, grads: list[Tensor], gram: Tensor, gaps: Tensor
    ) -> _Plan:
        """The step; moves m and a.

        Args:
            params: of the model.
            weights: softmax(a).
            grads: of the meta losses, K * P.
            gram: [K + 1, K + 1], of these and the gradient of f by the parameters.
            gaps: [K], how much more the training losses are before the inner steps than after.
        """
        slope = chain_rule(lambda logits: logits.softmax(0), self.logits, gaps)
        square = gram[-1, -1] + slope.square().sum()  # ||grad q||^2
        norms = gram.diagonal()[:-1].sqrt()
        inverse = torch.where(norms > 0, 1 / norms, 0.0)
        products = inverse * gram[-1, :-1]  # <grad q, F_k>
        found = meta_shares(inverse[:, None] * gram[:-1, :-1] * inverse, products, square, self.phi)
        self.shares += (self.epoch + 1) ** -0.75 * (found - self.shares)
        nu = (self.phi * self.shares.sum() - torch.where(square > 0, self.shares @ products / square, 0.0)).clamp_min(0)
        self.adam.step(self.logits, nu * slope)
        direction = ops.combine(grads, self.shares * inverse)
        reached = [pair for pair in zip(params.values(), direction, strict=True) if pair[1].numel()]
        return _Plan(nu * weights, reached)


def meta_shares(gram: Tensor, products: Tensor, square: Tensor, phi: float) -> Tensor:
    """The m on the simplex that minimises ``||sum_k m_k F_k + nu grad q||^2 - nu phi ||grad q||^2``, exactly.

    The best nu is ``max(0, phi - c)`` with ``c = sum_k m_k <grad q, F_k> / ||grad q||^2``. So up to a constant the
    function is ``m^T R m + phi ||grad q||^2 c`` where ``c <= phi``, R the Gram matrix of the F_k less their parts along
    grad q, and ``m^T G m`` where ``c >= phi``. It is convex: the minimum of either part is the answer if it lies in its
    own region. If neither does, the answer is the minimum of ``m^T R m`` where ``c = phi``, the convex hull of the
    points of that plane on the edges of the simplex.

    Args:
        gram: G, [K, K] float64, of the F_k, which have norm 1; where it is 0, the loss is left out (share 0).
        products: [K], ``<grad q, F_k>``.
        square: ``||grad q||^2``.
        phi: as in `FORUM`.

    Returns:
        [K] float64, on gram's device; all 0 where every F_k is.
    """
    shares = torch.zeros_like(gram[0])
    present = gram.diagonal() > 0
    if not present.any():
        return shares
    length = float(square.sqrt())
    along = products[present].cpu() / length if length > 0 else torch.zeros(int(present.sum()), dtype=gram.dtype)
    gram = gram[present][:, present].cpu()
    bound = phi * length
    rest = gram - torch.outer(along, along)
    found = _simplex_minimum(rest, bound / 2 * along)
    if along @ found > bound:
        found = _simplex_minimum(gram, torch.zeros_like(along))
        if along @ found < bound:
            corners = _crossings(along - bound)
            found = _simplex_minimum(corners @ rest @ corners.T, corners.new_zeros(len(corners))) @ corners
    shares[present] = found.to(shares)
    return shares


def _crossings(heights: Tensor) -> Tensor:
    """The points [n, K] on the edges of the simplex where a linear function is 0 whose corners' values are given."""
    above, below = heights > 0, heights <= 0
    upper, lower = heights[above][:, None, None], heights[below][None, :, None]
    corners = torch.eye(len(heights), dtype=heights.dtype)
    points = (upper * corners[below][None] - lower * corners[above][:, None]) / (upper - lower)
    return points.flatten(0, 1)


def _simplex_minimum(matrix: Tensor, linear: Tensor) -> Tensor:
    """Minimises ``1/2 w^T A w + linear^T w`` over the simplex, from the best corner on."""
    start = torch.zeros_like(linear)
    start[(matrix.diagonal() / 2 + linear).argmin()] = 1.0
    return simplex_minimum(matrix, linear, start)


def _present(grads: Sequence[Tensor | None], params: Sequence[Tensor]) -> list[Tensor]:
    """Gradients, empty tensors where there is none."""
    return [param.new_empty(0) if grad is None else grad for grad, param in zip(grads, params, strict=True)]
