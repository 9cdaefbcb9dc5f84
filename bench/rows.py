"""One row per operator: how to build its arguments, what it has to do at least, and what it should reach.

The correctness of what is timed is asserted by the tests' rows (`python_tests/op_cases`), on arguments built here.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from bench.floor import Work
from mtl_ext import ops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python_tests"))
CASES = importlib.import_module("op_cases").CASES

# K -> N.
COLUMNS = {2: 10_000_000, 3: 10_000_000, 8: 10_000_000, 20: 5_000_000, 40: 5_000_000}
CHECKED_COLUMNS = 500_000  # what the oracles, in extended precision, can afford
# Sizes of a ResNet-18's parameters in order; a list takes them from the start, scaled to its number of scalars.
RESNET_SIZES = (
    (9408, 64, 64)
    + (36864, 64, 64) * 4
    + (73728, 128, 128, 147456, 128, 128, 8192, 128, 128)
    + (147456, 128, 128) * 2
    + (294912, 256, 256, 589824, 256, 256, 32768, 256, 256)
    + (589824, 256, 256) * 2
    + (1179648, 512, 512, 2359296, 512, 512, 131072, 512, 512)
    + (2359296, 512, 512) * 2
)


def resnet_sizes(num_params: int, columns: int) -> list[int]:
    """P sizes in a ResNet's proportions that sum to N: whole vectors, the last parameter takes the rest."""
    pattern = [RESNET_SIZES[index % len(RESNET_SIZES)] for index in range(num_params)]
    scale = columns / sum(pattern)
    sizes = [size if size < 1024 else max(64, int(size * scale) // 64 * 64) for size in pattern]
    largest = max(range(num_params), key=sizes.__getitem__)
    sizes[largest] += columns - sum(sizes)
    if min(sizes) <= 0:
        raise ValueError(f"N is {columns}, too small for {num_params} parameters of a ResNet's sizes")
    return sizes


@dataclass
class Lists:
    """The tensors of one configuration, shared by the operators that are timed next to each other.

    Attributes:
        sizes: P numbers of scalars.
        grads: K * P float32, task-major, each with memory of its own.
        out: P tensors to write.
        second_out: P more, for operators that write two lists.
        weights: [K] float64.
        seed: of graddrop.
    """

    num_tasks: int
    sizes: list[int]
    grads: list[torch.Tensor]
    out: list[torch.Tensor]
    second_out: list[torch.Tensor]
    weights: torch.Tensor
    seed: torch.Tensor

    @property
    def columns(self) -> int:
        """N."""
        return sum(self.sizes)

    def task(self, k: int) -> list[torch.Tensor]:
        """One task's P gradients."""
        return self.grads[k * len(self.sizes) : (k + 1) * len(self.sizes)]

    def to(self, dtype: torch.dtype) -> "Lists":
        """The same numbers in another dtype."""
        lists = ([tensor.to(dtype) for tensor in tensors] for tensors in (self.grads, self.out, self.second_out))
        return Lists(self.num_tasks, self.sizes, *lists, self.weights, self.seed)


def make_lists(num_tasks: int, sizes: list[int], device: str = "cpu") -> Lists:
    """Random gradients with P sizes."""
    draw = torch.Generator(device).manual_seed(0)
    return Lists(
        num_tasks,
        sizes,
        [torch.randn(size, generator=draw, device=device) for _ in range(num_tasks) for size in sizes],
        *([torch.zeros(size, device=device) for size in sizes] for _ in range(2)),
        torch.linspace(0.5, 1.5, num_tasks, dtype=torch.float64, device=device),
        torch.tensor([17, 0], device=device),
    )


@dataclass(frozen=True)
class Target:
    """What a row should reach; `quantity` is a field of `Record`."""

    text: str
    quantity: str = "fraction_of_floor"


@dataclass(frozen=True)
class Row:
    """One operator as it is timed.

    Attributes:
        op: name in torch.ops.mtl_ext and in op_cases.
        arguments: lists -> the operator's arguments, in the schema's order.
        work: lists -> the least work.
        target: K -> target or None.
        num_tasks: the K that it is timed for; None: for all. (2,) alone stands for an operator on two lists.
        allocates: a functional form, timed next to empty().fill_() of its outputs.
        foreach: takes the same arguments, by torch._foreach functions, where that can be done.
    """

    op: str
    arguments: Callable[[Lists], tuple[Any, ...]]
    work: Callable[[Lists], Work]
    target: Callable[[int], Target | None] = lambda num_tasks: None
    num_tasks: tuple[int, ...] | None = None
    allocates: bool = False
    foreach: Callable[..., object] | None = None

    def available(self, device: str = "cpu") -> bool:
        """Whether a kernel is there."""
        return self.op in ops.OPERATORS and ops.has_kernel(self.op, device)

    def call(self, lists: Lists) -> Callable[[], Any]:
        """The operator on these lists, through the dispatcher."""
        function, arguments = getattr(torch.ops.mtl_ext, self.op).default, self.arguments(lists)
        return lambda: function(*arguments)

    def check(self, lists: Lists) -> None:
        """Runs the operator once and asserts its result by the oracle of the tests.

        Raises:
            AssertionError: the result is wrong: there is nothing to time.
        """
        check_result(self.op, getattr(torch.ops.mtl_ext, self.op).default, self.arguments(lists))


def check_result(op: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Calls an implementation and asserts its result by the tests' row; what it writes is a copy.

    Raises:
        AssertionError: the result is wrong.
    """
    case = CASES[op]
    written = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, arguments[: case.mutates])
    returned = function(*written, *arguments[case.mutates :])
    results = [*written, *([] if case.mutates and returned is None else [returned])]
    case.check(arguments, results[0] if len(results) == 1 else results)


def by_tasks(bounds: Mapping[int, float]) -> Callable[[int], Target | None]:
    """A target for each K, none elsewhere."""
    return lambda num_tasks: Target(f">={bounds[num_tasks]}") if num_tasks in bounds else None


def foreach_combine(out: Sequence[torch.Tensor], grads: list[torch.Tensor], weights: torch.Tensor, _: bool) -> None:
    """combine_ by one torch._foreach call per task."""
    count = len(out)
    for k, weight in enumerate(weights.tolist()):
        rows = grads[k * count : (k + 1) * count]
        if k == 0:
            torch._foreach_copy_(out, rows)
            torch._foreach_mul_(out, weight)
        else:
            torch._foreach_add_(out, rows, alpha=weight)


def foreach_perturb(plus, minus, params, direction, radius: float, _: bool) -> torch.Tensor:
    """perturb_ by torch._foreach."""
    eps = radius / torch.stack(torch._foreach_norm(direction)).norm()
    for out, step in ((plus, eps.item()), (minus, -eps.item())):
        torch._foreach_copy_(out, params)
        torch._foreach_add_(out, direction, alpha=step)
    return eps.double()


def foreach_difference(out, plus, minus, eps: torch.Tensor, _: bool) -> None:
    """finite_difference_ by torch._foreach."""
    torch._foreach_copy_(out, plus)
    torch._foreach_sub_(out, minus)
    torch._foreach_div_(out, 2 * eps.item())


def graddrop_tail(lists: Lists) -> tuple[Any, ...]:
    """What follows the gradients in graddrop's schemas: Philox, no leak, the identity."""
    return lists.num_tasks, lists.seed, [], None, False, 1.0


ROWS = {
    row.op: row
    for row in (
        Row(
            "gram",
            arguments=lambda x: (x.grads, x.num_tasks, None),
            work=lambda x: Work(bytes_read=bytes_of(x.grads), flops=x.num_tasks * (x.num_tasks + 1) * x.columns),
            target=by_tasks({2: 0.9, 3: 0.9, 8: 0.88, 20: 0.75, 40: 0.75}),
        ),
        Row(
            "combine_",
            arguments=lambda x: (x.out, x.grads, x.weights, False),
            work=lambda x: Work(bytes=bytes_of(x.grads, x.out), flops=2 * x.num_tasks * x.columns),
            target=lambda num_tasks: Target(">=0.9"),
            foreach=foreach_combine,
        ),
        Row(
            "combine",
            arguments=lambda x: (x.grads, x.weights),
            work=lambda x: Work(bytes=bytes_of(x.grads, x.out), flops=2 * x.num_tasks * x.columns),
            num_tasks=(2, 3, 8),
            allocates=True,
        ),
        Row(
            "graddrop_",
            arguments=lambda x: (x.out, x.grads, *graddrop_tail(x), False),
            work=lambda x: Work(bytes_of(x.grads, x.out), flops=5 * x.num_tasks * x.columns, philox=x.columns),
            target=by_tasks({2: 0.65, 3: 0.75, 8: 0.9}),
            num_tasks=(2, 3, 8),
        ),
        Row(
            "graddrop",
            arguments=lambda x: (x.grads, *graddrop_tail(x)),
            work=lambda x: Work(bytes_of(x.grads, x.out), flops=5 * x.num_tasks * x.columns, philox=x.columns),
            num_tasks=(2, 3, 8),
            allocates=True,
        ),
        Row(
            "saliency_entropy",
            arguments=lambda x: (x.grads, x.num_tasks),
            work=lambda x: Work(bytes_read=bytes_of(x.grads), logarithms=x.num_tasks * x.columns),
            target=lambda num_tasks: Target(">=0.5", "fraction_of_bytes"),
            num_tasks=(2, 3, 8),
        ),
        Row(  # parameters and a direction; the latter's norm is known only after a pass over it
            "perturb_",
            arguments=lambda x: (x.out, x.second_out, x.task(0), x.task(1), 1e-3, False),
            work=lambda x: Work(
                bytes_of(x.task(0), x.task(1), x.out, x.second_out), bytes_read=bytes_of(x.task(1)), flops=5 * x.columns
            ),
            target=lambda num_tasks: Target(">=0.9"),
            num_tasks=(2,),
            foreach=foreach_perturb,
        ),
        Row(
            "finite_difference_",
            arguments=lambda x: (x.out, x.task(0), x.task(1), x.weights[0], False),
            work=lambda x: Work(bytes_of(x.task(0), x.task(1), x.out), flops=2 * x.columns),
            target=lambda num_tasks: Target(">=0.9"),
            num_tasks=(2,),
            foreach=foreach_difference,
        ),
    )
}


def bytes_of(*lists: Sequence[torch.Tensor]) -> int:
    """Bytes that reading or writing these tensors once moves."""
    return sum(tensor.nbytes for tensors in lists for tensor in tensors)
