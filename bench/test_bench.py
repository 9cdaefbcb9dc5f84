"""pytest-benchmark over the operators, one implementation next to the other: `python -m pytest bench/test_bench.py`.

Implementations: kernel, reference, torch.compile of the reference, torch._foreach, TorchJD. What is timed has first
been checked: the first two by the tests' oracles, the others against the kernel where they compute the same numbers.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torchjd.aggregation as peer

from bench import records
from bench.floor import best_rates, compute_probes, floors, memory_probes
from bench.peers import PEERS
from bench.records import Record
from bench.rows import CASES, CHECKED_COLUMNS, ROWS, Lists, check_result, make_lists, resnet_sizes
from bench.timing import interleaved, peak_megabytes, percentiles
from mtl_ext import ops

pytestmark = pytest.mark.filterwarnings("ignore")

PARAMS, COLUMNS, TASKS = 12, 4_000_000, (3, 8)
SOLVER_TASKS = (3, 8, 64)
# Without branches on values. graddrop's reference is one too, but inductor takes minutes over Philox's ten rounds.
COMPILED = ("gram", "combine_", "saliency_entropy", "perturb_", "finite_difference_")
SOLVERS = {method.op: method for method in reversed(PEERS.values()) if method.arguments is not None}
RECORDS: list[Record] = []


def stacked(lists: Lists) -> torch.Tensor:
    """The Jacobian that TorchJD needs."""
    return torch.cat(lists.grads).view(lists.num_tasks, -1)


TORCHJD: dict[str, Callable[[Lists], object]] = {
    "gram": lambda lists: (lambda jacobian: jacobian @ jacobian.T)(stacked(lists)),
    "combine_": lambda lists: peer.Constant(lists.weights.float())(stacked(lists)).split(lists.sizes),
    "graddrop_": lambda lists: peer.GradDrop()(stacked(lists)).split(lists.sizes),
}


@pytest.fixture(scope="module")
def rates() -> Iterator[Callable[[Lists], dict[str, float]]]:
    """Lists -> the machine's best rates on tensors of these sizes, measured once per configuration."""
    known: dict[int, dict[str, float]] = {}

    def measure(lists: Lists) -> dict[str, float]:
        if lists.num_tasks not in known:
            probes = {**memory_probes(lists.grads, lists.out, 1), **compute_probes(1)}
            times = interleaved({name: probe.function for name, probe in probes.items()}, 5)
            known[lists.num_tasks] = best_rates(probes, {name: min(values) for name, values in times.items()})
        return known[lists.num_tasks]

    torch.set_num_threads(1)
    yield measure
    print(f"\nwritten to {records.write('suite', RECORDS)}")


def time_it(benchmark: Any, function: Callable[[], object], op: str, impl: str, **known: Any) -> Record:
    """Runs pytest-benchmark and turns its rounds into a line."""
    benchmark.group = f"{op} K={known['K']}"
    benchmark.pedantic(function, rounds=12, warmup_rounds=2)
    milliseconds = [1e3 * seconds for seconds in benchmark.stats.stats.data]
    line = Record("suite", op, impl, **known, **percentiles(milliseconds), peak_mb=peak_megabytes(function))
    RECORDS.append(line)
    return line


def list_cases() -> Iterator[tuple[str, str, int]]:
    """Every implementation of every operator on lists."""
    for op, row in ROWS.items():
        impls = ["kernel", "reference"]
        impls += (
            ["compiled"] * (op in COMPILED) + ["foreach"] * (row.foreach is not None) + ["torchjd"] * (op in TORCHJD)
        )
        for num_tasks in TASKS if row.num_tasks is None else (k for k in (2, 3, 8) if k in row.num_tasks):
            for impl in impls:
                yield op, impl, num_tasks


def implementation(op: str, impl: str) -> Callable[..., Any]:
    """A callable with the operator's schema."""
    if impl == "kernel":
        return getattr(torch.ops.mtl_ext, op).default
    if impl == "foreach":
        return ROWS[op].foreach
    reference = ops.OPERATORS[op].reference
    return torch.compile(reference) if impl == "compiled" else reference


def skip_unless_there(op: str) -> None:
    """A missing kernel is recorded, and skips."""
    if op not in ops.OPERATORS or not ops.has_kernel(op, "cpu"):
        if all(line.op != op for line in RECORDS):
            RECORDS.append(records.missing("suite", op))
        pytest.skip(f"{op} has no kernel here")


@pytest.mark.parametrize(("op", "impl", "num_tasks"), list(list_cases()))
def test_list_operator(op: str, impl: str, num_tasks: int, benchmark: Any, rates: Any) -> None:
    """One implementation on a list of gradients."""
    skip_unless_there(op)
    row, lists = ROWS[op], make_lists(num_tasks, resnet_sizes(PARAMS, COLUMNS))
    arguments = row.arguments(lists)
    if impl == "torchjd":
        function: Callable[[], object] = lambda: TORCHJD[op](lists)  # noqa: E731
    else:
        called = implementation(op, impl)
        function = lambda: called(*arguments)  # noqa: E731
    with torch.no_grad():
        if impl in ("kernel", "reference"):
            check_result(op, called, row.arguments(make_lists(num_tasks, resnet_sizes(PARAMS, CHECKED_COLUMNS))))
        elif op != "graddrop_":  # TorchJD draws other numbers
            assert_same_as_kernel(op, function, lists)
        known = {"K": num_tasks, "P": PARAMS, "N": lists.columns}
        line = time_it(benchmark, function, op, impl, **known)
    work = row.work(lists)
    line.gb_per_s, line.gflop_per_s = work.moved / line.min_ms / 1e6, work.flops / line.min_ms / 1e6
    costs = floors(work, rates(lists))
    line.limit = max(costs, key=costs.__getitem__)
    line.fraction_of_floor, line.fraction_of_bytes = costs[line.limit] / line.min_ms, costs["bytes"] / line.min_ms


def assert_same_as_kernel(op: str, function: Callable[[], Any], lists: Lists) -> None:
    """Compares numbers that are not held to the oracle's bounds."""
    results = []
    for compute in (ROWS[op].call(lists), function):
        result = compute()
        first = lists.out if CASES[op].mutates and not isinstance(result, tuple) else result
        results.append([first.clone()] if isinstance(first, torch.Tensor) else [tensor.clone() for tensor in first])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-3 * math.sqrt(lists.columns))


@pytest.mark.parametrize("num_tasks", SOLVER_TASKS)
@pytest.mark.parametrize("impl", ["kernel", "reference", "torchjd"])
@pytest.mark.parametrize("op", list(SOLVERS))
def test_solver(op: str, impl: str, num_tasks: int, benchmark: Any) -> None:
    """One implementation of the weights."""
    skip_unless_there(op)
    method = SOLVERS[op]
    draw = torch.Generator().manual_seed(num_tasks)
    matrix = torch.randn(num_tasks, 2 * num_tasks + 1, generator=draw, dtype=torch.float64)
    gram = matrix @ matrix.T
    gram = (gram + gram.T) / 2
    arguments = method.arguments(gram)
    if impl == "torchjd":
        weighting, given = method.weighting(num_tasks), matrix if method.takes_jacobian else gram
        function: Callable[[], object] = lambda: weighting(given)  # noqa: E731
    else:
        called = implementation(op, impl)
        check_result(op, called, arguments)
        function = lambda: called(*arguments)  # noqa: E731
    time_it(benchmark, function, op, impl, K=num_tasks, dtype="float64")
