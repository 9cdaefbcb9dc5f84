"""A prediction of the CUDA kernels' times on an H100, from compiled code and launch sizes: no GPU is needed or used.

    python -m bench.cuda_predict

The emulation runs every operator once and says what it launched; ptxas and the machine code for sm_90 say what the
kernels use. From these: occupancy, bytes in flight per multiprocessor, the bandwidth that they can sustain (Little's
law), and the time of the bytes at that bandwidth. Everything is printed as what it is: a prediction, not a measurement.
"""

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench import cuda_static
from bench.cuda_static import ROOT, Kernel
from bench.peers import PEERS
from bench.report import table
from bench.rows import COLUMNS, ROWS, make_lists, resnet_sizes
from mtl_ext import ops

# NVIDIA H100 SXM5 80 GB, from its data sheet, and a latency as measured by others: 132 multiprocessors.
BANDWIDTH, MULTIPROCESSORS, LATENCY = 3.35e12, 132, 600e-9
REGISTERS, WARPS, BLOCKS, SHARED = 65536, 64, 32, 228 * 1024
EMULATED_COLUMNS = 100_000
NAMESPACE = "mtl_ext_emulation"


@dataclass(frozen=True)
class Launch:
    """What one call launched first: the kernel that reads its arguments.

    Attributes:
        kernel: as `cuda_static` names it.
        threads: of a block.
        shared: bytes of dynamic shared memory of a block.
    """

    kernel: str
    threads: int
    shared: int


def load_emulation() -> Any:
    """Declares the operators under the emulation's namespace and loads it."""
    for operator in ops.OPERATORS.values():
        operator.define(NAMESPACE)
    return importlib.import_module("mtl_ext._emulation")


def kernel_name(record: dict[str, Any]) -> str:
    """The kernel at a launch: its name from the source, template arguments from the launching function."""
    lines = (ROOT / record["file"]).read_text().splitlines()
    source = "\n".join(lines[record["line"] - 1 :])
    found = re.match(r".*?MTL_LAUNCH\(\(?(\w+)(<?)", source, re.DOTALL)
    assert found is not None, record
    arguments = re.search(r"launch_\w+(<.*?>)\(", record["function"])
    return found[1] + (arguments[1] if found[2] and arguments else "")


def launches(emulation: Any, op: str, arguments: tuple[Any, ...]) -> list[Launch]:
    """Runs an operator and lists the kernels that it launched, each once."""
    emulation.take_launches()
    getattr(getattr(torch.ops, NAMESPACE), op)(*arguments)
    found = []
    for record in emulation.take_launches():
        x, y, z = record["block"]
        found.append(Launch(kernel_name(record), x * y * z, record["shared_bytes"]))
    return list(dict.fromkeys(found))


def occupancy(kernel: Kernel, launch: Launch) -> int:
    """Warps that a multiprocessor of sm_90 holds at a time; registers are handed out in units of 256 per warp."""
    warps = -(-launch.threads // 32)
    per_warp = -(-kernel.registers * 32 // 256) * 256
    blocks = min(BLOCKS, WARPS // warps, REGISTERS // (per_warp * warps), SHARED // (launch.shared + 1024))
    return blocks * warps


def rows(emulation: Any, kernels: dict[str, Kernel]) -> Iterator[list[str]]:
    """A line per operator, K and kernel."""
    for num_tasks, columns in COLUMNS.items():
        lists = make_lists(num_tasks, resnet_sizes(60, EMULATED_COLUMNS))
        for row in ROWS.values():
            if row.allocates or not is_emulated(row.op) or num_tasks not in (row.num_tasks or COLUMNS):
                continue
            per_column = row.work(lists).moved / lists.columns
            for launch in launches(emulation, row.op, row.arguments(lists)):
                predicted = bandwidth(kernels, launch, per_column, columns)
                yield [row.op, str(num_tasks), *resources(kernels, launch), *predicted]
    for method in {method.op: method for method in PEERS.values() if method.arguments is not None}.values():
        if is_emulated(method.op):
            matrix = torch.randn(8, 17, dtype=torch.float64)
            for launch in launches(emulation, method.op, method.arguments(matrix @ matrix.T)):
                yield [method.op, "8", *resources(kernels, launch), "", "", "", ""]


def is_emulated(op: str) -> bool:
    """Whether an operator has a CUDA kernel that the emulation runs."""
    return op in ops.OPERATORS and torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", "CPU")


def resources(kernels: dict[str, Kernel], launch: Launch) -> list[str]:
    """Kernel, threads, registers, shared memory, occupancy."""
    kernel = kernels[launch.kernel]
    share = f"{occupancy(kernel, launch) / WARPS:.0%}"
    return [f"`{launch.kernel}`", str(launch.threads), str(kernel.registers), str(launch.shared), share]


def bandwidth(kernels: dict[str, Kernel], launch: Launch, per_column: float, columns: int) -> list[str]:
    """Bytes per column, KiB in flight, fraction of the bandwidth, predicted ms; empty for finishing kernels."""
    kernel = kernels[launch.kernel]
    in_flight = 32 * occupancy(kernel, launch) * 16 * kernel.vector_loads_in_flight()
    if in_flight == 0:
        return ["", "", "", ""]
    fraction = min(1.0, in_flight * MULTIPROCESSORS / (BANDWIDTH * LATENCY))
    milliseconds = 1e3 * per_column * columns / (BANDWIDTH * fraction)
    return [f"{per_column:.0f}", f"{in_flight / 1024:.0f}", f"{fraction:.0%}", f"{milliseconds:.3f}"]


def main() -> None:
    """Prints the table."""
    found = {kernel.name: kernel for item in cuda_static.inspect_all(("sm_90",)) for kernel in item.kernels}
    print("PREDICTION for an H100 SXM5 (3.35 TB/s, 132 multiprocessors, 600 ns), float32, N as in bench/README.md.")
    print("Nothing here has run on a GPU. A kernel that reaches its bandwidth only by L2 hits is not foreseen.\n")
    header = ["op", "K", "kernel", "threads", "registers", "shared bytes", "occupancy", "bytes per column"]
    header += ["KiB in flight per SM", "of bandwidth", "predicted ms"]
    print(table(header, rows(load_emulation(), found)))


if __name__ == "__main__":
    main()
