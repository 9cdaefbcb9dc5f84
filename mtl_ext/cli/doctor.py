"""`mtl-ext doctor`: what is built, and what of it runs on this machine."""

import os
import platform
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from mtl_ext import ops
from mtl_ext.cli.command import Command
from mtl_ext.cli.report import versions

# What the psABI's levels add: the loader picks the CPU kernels' loops by them.
X86_64_LEVELS = {
    "x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "x86-64-v3": {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"},
}


def doctor(console: Console) -> None:
    """Prints what is built and hints where something is missing."""
    library = ops.library
    info = {} if library is None else library.build_info()
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    facts.add_column(style="bold")
    for name, version in versions().items():
        facts.add_row(name, version)
    facts.add_row("compiled library", "none" if library is None else f"{library.__file__}")
    facts.add_row("compiler", info.get("compiler", "-"))
    facts.add_row("CUDA architectures", info.get("cuda_architectures") or "none: built without CUDA")
    facts.add_row("CUDA devices", ", ".join(_cuda_devices()) or "none")
    facts.add_row("instruction set", f"torch {torch.backends.cpu.get_cpu_capability()}, kernels {_kernel_level()}")
    facts.add_row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} CPUs")
    console.print(facts)

    table = Table(title="Operators", title_justify="left")
    for column in ("operator", "cpu", "cuda"):
        table.add_column(column)
    for name in ops.OPERATORS:
        table.add_row(name, *("kernel" if ops.has_kernel(name, device) else "reference" for device in ("cpu", "cuda")))
    console.print(table)
    for hint in _hints(bool(info), bool(info.get("cuda_architectures"))):
        console.print(f"hint: {hint}", style="yellow", markup=False)


def _cuda_devices() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _kernel_level() -> str:
    """The instruction set that the loader chooses for the CPU kernels' loops."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not cpuinfo.exists():
        return platform.machine()
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("flags"))
    flags = set(next(lines, "").split())
    return next((level for level, needed in X86_64_LEVELS.items() if needed <= flags), "x86-64")


def _hints(has_library: bool, has_cuda: bool) -> list[str]:
    hints = []
    if not has_library:
        hints.append(
            "no compiled kernels, the slower PyTorch references serve: install a C++20 compiler and "
            "reinstall with `pip install --no-build-isolation mtl_ext`"
        )
    if torch.cuda.is_available() and not has_cuda:
        hints.append("a CUDA device but no CUDA kernels: set CUDA_HOME and reinstall with MTL_EXT_CUDA=1")
    if platform.system() == "Linux" and os.environ.get("THP_MEM_ALLOC_ENABLE") != "1":
        hints.append("THP_MEM_ALLOC_ENABLE=1 gives large CPU tensors huge pages: fewer page faults in fresh outputs")
    if torch.get_num_threads() > 1:
        hints.append("small networks train faster with OMP_NUM_THREADS=1 when other programs use the CPUs")
    return hints


COMMAND = Command(
    "doctor",
    "",
    "show what is built and what runs here",
    """\
Prints versions, which operator has a kernel on which device, instruction sets, CUDA architectures and threads, with
hints where something is missing.

example:
  mtl-ext doctor
""",
    lambda console, options: doctor(console),
)
