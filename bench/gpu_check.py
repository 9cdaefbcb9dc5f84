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

import torch

from mtl_ext import ops
from mtl_ext.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent


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


def timings() -> list[str]:
    """Markdown rows: kernel time, its fraction of a copy's bandwidth, and plain PyTorch's time."""
    rows = ["| op | K | N | ms | of copy bandwidth | plain ms | speed-up |", "|---|---|---|---|---|---|---|"]
    columns = 10_000_000
    for num_tasks in (2, 3, 8, 20, 40):
        jacobian = torch.randn(num_tasks, columns, device="cuda")
        grads, target = list(jacobian), torch.empty_like(jacobian)
        weights = torch.rand(num_tasks, dtype=torch.float64, device="cuda")
        narrow, out = weights.float(), torch.empty(columns, device="cuda")
        copy_rate = 2 * jacobian.nbytes / milliseconds(lambda a=target, b=jacobian: a.copy_(b))
        cases = {
            "gram": (
                lambda g=grads: ops.gram(g, len(g)),
                lambda j=jacobian: j @ j.T,
                jacobian.nbytes,
            ),
            "combine_": (
                lambda g=grads, w=weights, o=out: ops.combine_([o], g, w),
                lambda j=jacobian, w=narrow, o=out: torch.mv(j.T, w, out=o),
                jacobian.nbytes + out.nbytes,
            ),
        }
        for op, (kernel, plain, moved) in cases.items():
            ours, theirs = milliseconds(kernel), milliseconds(plain)
            fraction = moved / ours / copy_rate
            row = (op, num_tasks, columns, f"{ours:.3f}", f"{fraction:.2f}", f"{theirs:.3f}", f"{theirs / ours:.2f}")
            rows.append("| " + " | ".join(map(str, row)) + " |")
    return rows


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
        *timings(),
    ]
    (ROOT / "gpu_report.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not passed or "DIFFERS" in capture + methods:
        sys.exit(1)


if __name__ == "__main__":
    main()
