"""Everything that can only be shown on a GPU, in one command: `make gpu-check`.

Runs every operator row and every method on the device, captures Gram -> weights -> combine in a CUDA graph, times the
kernels against the device's memory, and writes what it saw to gpu_report.md.
"""

import inspect
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from bench.peers import PEERS
from bench.rows import CHECKED_COLUMNS, COLUMNS, ROWS, make_lists, resnet_sizes
from mtl_ext import ops
from mtl_ext.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
ONE_PROBLEM = ("pcgrad",)  # takes no batch


def milliseconds(function: Callable[[], object], rounds: int = 20) -> float:
    """Fastest of several runs, by CUDA events."""
    best = float("inf")
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end))
    return best


def capture_check() -> str:
    """Replays gram -> pcgrad, min_norm -> combine_ from a CUDA graph and compares the bits with eager mode."""
    grads = [torch.randn(shape, device="cuda") for _ in range(3) for shape in ((64, 33), (1031,))]
    order = torch.tensor([[1, 2], [0, 2], [0, 1]], device="cuda")
    out = [torch.zeros_like(grad) for grad in grads[:2]]

    def step() -> None:
        gram = ops.gram(grads, 3)
        weights, _, _ = ops.min_norm(gram)
        ops.combine_(out, grads, weights + ops.pcgrad(gram, order))

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for grad in grads:
        grad.normal_()
    graph.replay()
    replayed = [tensor.clone() for tensor in out]
    step()
    same = all(torch.equal(a, b) for a, b in zip(replayed, out, strict=True))
    return "same bits as eager" if same else "DIFFERS from eager"


def methods_check() -> str:
    """Runs every method on a small model on both devices and compares the gradients."""
    for name, method in METHODS.items():
        for level in ("shared", "features"):
            grads = []
            for device in ("cpu", "cuda"):
                torch.manual_seed(0)
                trunk, heads = torch.nn.Linear(9, 7), torch.nn.Linear(7, 3)
                inputs = torch.randn(32, 9).to(device)
                z = trunk.to(device)(inputs)
                losses = heads.to(device)(z).square().mean(0)
                options = {"num_tasks": 3} if "num_tasks" in inspect.signature(method).parameters else {}
                optimised = method(**options).to(device)
                optimised.backward(
                    losses, **({"shared": list(trunk.parameters())} if level == "shared" else {level: z})
                )
                optimised.check()
                grads.append([p.grad.cpu() for p in (*trunk.parameters(), *heads.parameters())])
            if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*grads, strict=True)):
                return f"{name} at {level} level DIFFERS from the CPU"
    return "gradients as on the CPU"


def list_timings(device: str = "cuda") -> list[str]:
    """Markdown rows of the operators on lists: time, fraction of a copy's bandwidth, and torch._foreach's time."""
    rows = ["| op | K | P | N | ms | GB/s | of copy bandwidth | foreach ms |", "|---|---|---|---|---|---|---|---|"]
    for num_tasks, columns in COLUMNS.items():
        lists = make_lists(num_tasks, resnet_sizes(60, columns), device)
        copied = torch.empty(num_tasks * columns, device=device)
        source = torch.empty_like(copied)
        copy_rate = 2 * copied.nbytes / milliseconds(lambda a=copied, b=source: a.copy_(b))
        for row in ROWS.values():
            if row.num_tasks is not None and num_tasks not in row.num_tasks:
                continue
            row.check(make_lists(num_tasks, resnet_sizes(60, CHECKED_COLUMNS), device))
            ours = milliseconds(row.call(lists))
            foreach = ""
            if row.foreach is not None:
                arguments = row.arguments(lists)
                foreach = f"{milliseconds(lambda f=row.foreach, a=arguments: f(*a)):.3f}"
            rate = row.work(lists).moved / ours
            cells = (
                row.op,
                num_tasks,
                60,
                columns,
                f"{ours:.3f}",
                f"{rate / 1e6:.0f}",
                f"{rate / copy_rate:.2f}",
                foreach,
            )
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def solver_timings(device: str = "cuda") -> list[str]:
    """Markdown rows of the solvers: one problem, and a thousand, in microseconds per call."""
    rows = ["| op | K | one problem, us | 1,000 problems, us |", "|---|---|---|---|"]
    for op in dict.fromkeys(method.op for method in PEERS.values() if method.arguments is not None):
        method = next(method for method in PEERS.values() if method.op == op and method.arguments is not None)
        for num_tasks in (3, 8, 20, 64):
            matrix = torch.randn(num_tasks, 2 * num_tasks + 1, dtype=torch.float64)
            arguments = tree_map(on_device(device), method.arguments(matrix @ matrix.T))
            function = getattr(torch.ops.mtl_ext, op)
            cells = [op, num_tasks, f"{1e3 * milliseconds(lambda f=function, a=arguments: f(*a)):.1f}", ""]
            if op not in ONE_PROBLEM:
                many = tree_map(lambda x: x.expand(1000, *x.shape).contiguous() if is_tensor(x) else x, arguments)
                cells[3] = f"{1e3 * milliseconds(lambda f=function, a=many: f(*a)):.1f}"
            rows.append(f"| {' | '.join(map(str, cells))} |")
    return rows


def is_tensor(value: object) -> bool:
    """Whether an argument is one."""
    return isinstance(value, torch.Tensor)


def on_device(device: str) -> Callable[[Any], Any]:
    """Moves tensors, leaves the rest."""
    return lambda value: value.to(device) if is_tensor(value) else value


def main() -> None:
    """Checks, times and reports.

    Raises:
        SystemExit: there is no GPU, no CUDA kernel, or a check failed.
    """
    if not torch.cuda.is_available():
        sys.exit("gpu-check needs a CUDA device and a CUDA build of torch 2.13 or later; none is visible here")
    missing = [name for name in ops.OPERATORS if not ops.has_kernel(name, "cuda")]
    if missing:
        sys.exit(f"the library was built without CUDA kernels for {missing}: install nvcc, set MTL_EXT_CUDA=1, rebuild")
    tests = ["python_tests/test_ops.py", "-k", "not emulation"]
    command = [sys.executable, "-m", "pytest", "-q", "--device", "cuda", *tests]
    passed = subprocess.run(command, cwd=ROOT).returncode == 0
    capture, methods = capture_check(), methods_check()
    lines = [
        "# mtl_ext on a GPU",
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, {platform.platform()}",
        "",
        f"- operator tests: {'passed' if passed else 'FAILED'}",
        f"- methods: {methods}",
        f"- CUDA graph of the whole path: {capture}",
        "",
        *list_timings(),
        "",
        *solver_timings(),
    ]
    (ROOT / "gpu_report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not passed or "DIFFERS" in capture + methods:
        sys.exit(1)


if __name__ == "__main__":
    main()
