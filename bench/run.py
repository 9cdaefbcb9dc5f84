"""Times the operators against this machine's floor and against plain PyTorch, as ratios within one run.

python -m bench.run [--op gram] [--tasks 2 3 8] [--threads 1 2] [--rounds 60] [--csv FILE]
"""

import argparse
import csv
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields

import torch

from bench.floor import memory_probes
from mtl_ext import ops

# Parameter sizes of a ResNet, repeated and cut to the wanted total.
RESNET_SIZES = (9408, 64, 64, 36864, 64, 36864, 73728, 128, 147456, 8192, 294912, 256, 589824, 1179648, 512, 2359296)


@dataclass(frozen=True)
class Row:
    """One measurement: `fraction_of_floor` is floor time over kernel time, `speedup` plain PyTorch over kernel."""

    op: str
    tasks: int
    columns: int
    params: int
    threads: int
    kernel_ms: float
    floor_ms: float
    fraction_of_floor: float
    plain_ms: float
    speedup: float


def split_like_resnet(row: torch.Tensor) -> list[torch.Tensor]:
    """Views of a row [N] with a ResNet's parameter sizes."""
    sizes, left, index = [], row.numel(), 0
    while left > 0:
        sizes.append(min(left, RESNET_SIZES[index % len(RESNET_SIZES)]))
        left, index = left - sizes[-1], index + 1
    return list(row.split(sizes))


def interleaved_minimum(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each function: the minimum over rounds that visit all of them in turn."""
    best = dict.fromkeys(functions, float("inf"))
    for round_index in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_index > 0:  # the first round warms up
                best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def measure(op: str, num_tasks: int, columns: int, threads: int, rounds: int) -> Row:
    """One operator on a ResNet's list of float32 gradients.

    Raises:
        SystemExit: the kernel is missing, its result is wrong, or a probe is slower than what it bounds.
    """
    if not ops.has_kernel(op, "cpu"):
        sys.exit(f"{op} has no kernel here: timing its reference would prove nothing")
    torch.set_num_threads(threads)
    jacobian = torch.randn(num_tasks, columns, generator=torch.Generator().manual_seed(0))
    grads = [tensor for row in jacobian for tensor in split_like_resnet(row)]
    num_params = len(grads) // num_tasks
    weights = torch.linspace(0.5, 1.5, num_tasks, dtype=torch.float64)
    out = torch.zeros(columns)
    out_list = split_like_resnet(out)
    kernels: dict[str, tuple[Callable[[], object], Callable[[], object], Callable[[], torch.Tensor]]] = {
        "gram": (lambda: ops.gram(grads, num_tasks), lambda: jacobian @ jacobian.T, lambda: ops.gram(grads, num_tasks)),
        "combine_": (
            lambda: ops.combine_(out_list, grads, weights),
            lambda: torch.mv(jacobian.T, weights.float(), out=out),
            lambda: out,
        ),
    }
    kernel, plain, result = kernels[op]
    kernel()
    expected = jacobian.double() @ jacobian.double().T if op == "gram" else weights @ jacobian.double()
    torch.testing.assert_close(result().double(), expected, rtol=1e-4, atol=1e-3)
    probes = memory_probes(list(jacobian), threads)
    times = interleaved_minimum(
        {"kernel": kernel, **{name: f for name, (f, _) in probes.items()}, "plain": plain}, rounds
    )
    rate = max(count / times[name] for name, (_, count) in probes.items())
    moved = 4 * columns * (num_tasks if op == "gram" else num_tasks + 1)
    floor = moved / rate
    return Row(
        op, num_tasks, columns, num_params, threads, times["kernel"], floor, floor / times["kernel"], times["plain"],
        times["plain"] / times["kernel"],
    )  # fmt: skip


def main() -> None:
    """Runs the chosen measurements and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--op", nargs="*", default=["gram", "combine_"], choices=["gram", "combine_"])
    parser.add_argument("--tasks", nargs="*", type=int, default=[2, 3, 8])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--columns", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--csv", help="also write the rows to this file")
    options = parser.parse_args()
    names = [field.name for field in fields(Row)]
    print(f"float32, minimum of {options.rounds} interleaved rounds, torch {torch.__version__}; memory is the floor")
    print("".join(name.rjust(max(10, len(name) + 2)) for name in names))
    rows = []
    for op in options.op:
        for num_tasks in options.tasks:
            for threads in options.threads:
                row = measure(op, num_tasks, options.columns, threads, options.rounds)
                rows.append(asdict(row))
                cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in rows[-1].values())
                print("".join(c.rjust(max(10, len(n) + 2)) for c, n in zip(cells, names, strict=True)), flush=True)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
