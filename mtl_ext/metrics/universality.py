"""Universality: how little a representation asks of a task's head."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtl_ext.methods.base import check_choice, check_range

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Universality:
    """What `universality` finds. Losses and norms are those of the mean over samples.

    Attributes:
        value: U, the inverse of `excess`; infinite where the arbitrary head does as well as the optimal one.
        arbitrary_loss: of the arbitrary head, with its classes permuted.
        optimal_loss: of the optimal head, without the ridge.
        norm: of the gradient of the arbitrary head's loss, without permutation, by its parameters.
        distance: between the parameters of the two heads.
        gap: at most how far the optimum found lies above the true one, in the loss with the ridge: ``|grad|^2 /
            (2 ridge)``, for a loss that is convex in the head's parameters.
        permutation: class -> class that stands for it, [C]; None where there is no single one.
    """

    value: float
    arbitrary_loss: float
    optimal_loss: float
    norm: float
    distance: float
    gap: float
    permutation: tuple[int, ...] | None

    @property
    def excess(self) -> float:
        """Loss of the arbitrary head minus loss of the optimal one."""
        return self.arbitrary_loss - self.optimal_loss

    @property
    def bound(self) -> float:
        """``norm * distance``, which `excess` does not exceed where the loss is convex in the head's parameters.

        This is what Theorem 1 amounts to: with a small gradient norm, an arbitrary head cannot be far from optimal.
        """
        return self.norm * self.distance


def universality(
    head: nn.Module,
    features: Any,
    targets: Tensor,
    loss: LossFunction,
    *,
    permutation: str = "global",
    ridge: float = 1e-4,
    max_iterations: int = 1000,
) -> Universality:
    """Universality of features for a task (Shin, Do & Son 2024, Definition 2), given an arbitrary head.

    The inverse of [loss of the arbitrary head under the best permutation of classes - loss of the optimal head] (Eq. 3,
    whose printed form has lost the minus sign). Losses are means over the samples; the paper's sums are n times these.
    The optimal head begins at the arbitrary one and is found by L-BFGS in float64 with ``ridge / 2 |parameters|^2``;
    heads with hidden layers have a local optimum there.

    Args:
        head: the arbitrary, untrained head; a dummy of `mtl_ext.penalties.DGR`, say. Only read; in evaluation mode.
        features: what the head reads, [n, ...], a tensor or several, without a graph.
        targets: [n, ...]; classes [n] or [n, H, W] int64 where they are permuted, others than 0 .. C - 1 are ignored.
        loss: (output, target) -> scalar, the mean over samples (or pixels).
        permutation: ``"global"``: one permutation, found by assignment over the pairs of classes. ``"per_sample"``: the
            best class for each sample, as Eq. 3 is printed; a lower bound of any loss. ``"none"``: as for regression.
        ridge: above 0; without it the optimum of separable classes lies at infinity.
        max_iterations: of L-BFGS.

    Raises:
        ImportError: ``"global"`` without scipy.
        ValueError: an option has no such value; targets that are no classes are to be permuted.
    """
    check_choice("permutation", permutation, ("global", "per_sample", "none"))
    check_range("ridge", ridge, 0.0, open_low=True)
    if permutation != "none" and targets.dtype != torch.int64:
        raise ValueError(f"targets are {targets.dtype}, expected int64 classes to permute: take permutation='none'")
    head = deepcopy(head).double().eval()
    inputs = features.detach().double() if isinstance(features, Tensor) else [z.detach().double() for z in features]
    targets = targets.double() if targets.is_floating_point() else targets
    start = {name: param.detach().clone().requires_grad_() for name, param in head.named_parameters()}

    def loss_at(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        output: Tensor = functional_call(head, params, (inputs,))
        return loss(output, targets), output

    with torch.enable_grad():
        plain, output = loss_at(start)
        norm = _norm(torch.autograd.grad(plain, list(start.values())))
        best, gap = _minimised(start, lambda params: loss_at(params)[0], ridge, max_iterations)
    optimal = float(loss_at(best)[0])
    arbitrary, classes = _permuted(plain.detach(), output.detach(), targets, loss, permutation)
    distance = _norm([best[name] - start[name].detach() for name in start])
    excess = arbitrary - optimal
    value = 1 / excess if excess > 0 else float("inf")
    return Universality(value, arbitrary, optimal, norm, distance, gap, classes)


def _minimised(
    start: dict[str, Tensor], loss: Callable[[dict[str, Tensor]], Tensor], ridge: float, max_iterations: int
) -> tuple[dict[str, Tensor], float]:
    """The parameters at the minimum of loss and ridge, and the bound of what is left to gain."""
    params = {name: param.detach().clone().requires_grad_() for name, param in start.items()}
    optimizer = torch.optim.LBFGS(
        list(params.values()),
        max_iter=max_iterations,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(params) + 0.5 * ridge * torch.stack([param.square().sum() for param in params.values()]).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    closure()
    left = _norm([param.grad for param in params.values() if param.grad is not None])
    return {name: param.detach() for name, param in params.items()}, left**2 / (2 * ridge)


def _permuted(
    plain: Tensor, output: Tensor, targets: Tensor, loss: LossFunction, permutation: str
) -> tuple[float, tuple[int, ...] | None]:
    """The arbitrary head's loss with the best permutation of classes, and that, where it is one for all."""
    if permutation == "none":
        return float(plain), None
    count = output.shape[1]
    rows = output.movedim(1, -1).reshape(-1, count)
    classes = targets.reshape(-1)
    known = (classes >= 0) & (classes < count)
    rows, classes = rows[known], classes[known]
    every = torch.arange(count, device=rows.device)
    one = torch.vmap(lambda row, label: loss(row[None], label[None]), in_dims=(None, 0))
    losses = torch.vmap(one, in_dims=(0, None))(rows, every)  # [n, C], of each sample as each class
    if permutation == "per_sample":
        return float(losses.min(dim=1).values.mean()), None
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError('a global permutation needs scipy: pip install "mtl_ext[eval]"') from error
    cost = torch.zeros(count, count, dtype=losses.dtype, device=losses.device).index_add_(0, classes, losses)
    _, chosen = linear_sum_assignment(cost.cpu().numpy())
    index = torch.as_tensor(chosen, device=cost.device)
    return float(cost.gather(1, index[:, None]).sum() / len(rows)), tuple(index.tolist())


def _norm(tensors: Any) -> float:
    """The norm of all tensors together."""
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())
