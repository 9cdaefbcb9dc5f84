"""What the compiler and the machine code say about the CUDA kernels, without a GPU.

Compiles every ``csrc/cuda/*.cu`` with the build's own flags for all supported architectures and reports, per kernel and
architecture, registers, stack, spills and shared memory (from ptxas) and the instructions (from cuobjdump), and per
object file the CUDA symbols it needs. ``python_tests/test_cuda_static.py`` holds the bounds.

    python bench/cuda_static.py

Needs nvcc (CUDA_HOME or PATH), binutils, and cuobjdump with nvdisasm (part of the toolkit, or
``pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm``).
"""

import ast
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100")
PTX = "compute_100"

VECTOR_LOAD = "LDG.E.128"
# What cannot start, or must not pass, before earlier loads have arrived.
WAITS = ("FFMA", "FADD", "FMUL", "DFMA", "DADD", "DMUL", "BAR")

PTXAS = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
SASS_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture."""

    name: str  # without namespace and arguments: gram_registers_kernel<float, 8>
    architecture: str
    registers: int
    stack: int
    spills: int
    static_shared: int
    opcodes: list[str]  # of the machine code, in order, with suffixes: LDG.E.128

    def count(self, *operations: str) -> int:
        """Instructions whose opcode, up to a dot, is one of these."""
        return sum(opcode.split(".")[0] in operations for opcode in self.opcodes)

    def vector_loads_in_flight(self) -> int:
        """The most 128-bit loads from memory with no arithmetic or barrier between them."""
        most = run = 0
        for opcode in self.opcodes:
            run = 0 if opcode.split(".")[0] in WAITS else run + (opcode == VECTOR_LOAD)
            most = max(most, run)
        return most


@dataclass(frozen=True)
class Object:
    """One compiled source file."""

    source: str
    kernels: list[Kernel]
    ptx: list[str]
    cuda_symbols: set[str]  # undefined names of the CUDA runtime


def find_nvcc() -> str | None:
    """The compiler of CUDA_HOME, else the one on PATH."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


def tools_path() -> str:
    """PATH with the folders where cuobjdump and nvdisasm may live in front."""
    packages = Path(sysconfig.get_paths()["purelib"], "nvidia")
    nvcc = find_nvcc()
    folders = [*sorted(map(str, packages.glob("*/bin"))), *([str(Path(nvcc).parent)] if nvcc else [])]
    return os.pathsep.join([*folders, os.environ["PATH"]])


def find_cuobjdump() -> str | None:
    """The disassembler, or None where it or nvdisasm is not installed."""
    return shutil.which("cuobjdump", path=tools_path()) if shutil.which("nvdisasm", path=tools_path()) else None


def run(*command: str | Path, text: str | None = None) -> str:
    """Standard output and error of a command that has to succeed."""
    environment = {**os.environ, "PATH": tools_path()}
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build_flags() -> list[str]:
    """NVCC_FLAGS of setup.py."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "NVCC_FLAGS":
            return list(ast.literal_eval(statement.value))
    raise RuntimeError("setup.py: no assignment to NVCC_FLAGS found")


def short_names(mangled: set[str]) -> dict[str, str]:
    """Readable kernel names: demangled, without return type, namespaces and arguments."""
    names = sorted(mangled)
    readable = run("c++filt", text="\n".join(names)).splitlines()
    plain = [re.sub(r"\(anonymous namespace\)::|mtl::|^void ", "", name).split("(")[0] for name in readable]
    return dict(zip(names, plain, strict=True))


def disassemble(path: Path) -> dict[tuple[str, str], list[str]]:
    """Opcodes of every (mangled kernel, architecture) in an object file."""
    opcodes = {}
    for section in run("cuobjdump", "-sass", path).split("\tcode for ")[1:]:
        architecture = section.split(maxsplit=1)[0]
        for function in section.split("Function : ")[1:]:
            opcodes[function.split(maxsplit=1)[0], architecture] = SASS_OPCODE.findall(function)
    return opcodes


def inspect(source: Path, folder: Path, architectures: tuple[str, ...]) -> Object:
    """Compiles one file and reads everything about it."""
    path = folder / source.with_suffix(".o").name
    numbers = [name.removeprefix("sm_") for name in architectures]
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    targets.append(f"-gencode=arch={PTX},code={PTX}")
    nvcc = find_nvcc()
    assert nvcc is not None, "nvcc not found: set CUDA_HOME"
    log = run(nvcc, *build_flags(), *targets, f"-I{ROOT / 'csrc'}", "-c", source, "-o", path)
    reports = list(PTXAS.finditer(log))
    names = short_names({report["name"] for report in reports})
    opcodes = disassemble(path)
    kernels = []
    for report in reports:
        shared = re.search(r"(\d+) bytes smem", report["rest"])
        kernels.append(
            Kernel(
                name=names[report["name"]],
                architecture=report["architecture"],
                registers=int(report["registers"]),
                stack=int(report["stack"]),
                spills=int(report["stores"]) + int(report["loads"]),
                static_shared=int(shared[1]) if shared else 0,
                opcodes=opcodes[report["name"], report["architecture"]],
            )
        )
    ptx = re.findall(r"\.(sm_\w+)\.ptx", run("cuobjdump", "--list-ptx", path))
    symbols = {line.split()[-1] for line in run("nm", "-u", path).splitlines()}
    return Object(source.name, kernels, ptx, {name for name in symbols if "cuda" in name.lower()})


def inspect_all(architectures: tuple[str, ...] = ARCHITECTURES) -> list[Object]:
    """Every CUDA source of the project."""
    with tempfile.TemporaryDirectory() as folder:
        return [inspect(source, Path(folder), architectures) for source in sorted((ROOT / "csrc/cuda").glob("*.cu"))]


def report(objects: list[Object]) -> str:
    """A table: a line per kernel, registers and 128-bit loads in flight per architecture."""
    header = [f"{'registers / 128-bit loads':38}", *(f"{name:>9}" for name in ARCHITECTURES), "   stack  spills"]
    lines = ["".join(header)]
    for item in objects:
        for name in sorted({kernel.name for kernel in item.kernels}):
            found = {kernel.architecture: kernel for kernel in item.kernels if kernel.name == name}
            cells = [f"{found[a].registers:>5} /{found[a].vector_loads_in_flight():>2}" for a in ARCHITECTURES]
            stack, spills = (max(getattr(kernel, field) for kernel in found.values()) for field in ("stack", "spills"))
            lines.append("".join([f"{name:38}", *(f"{cell:>9}" for cell in cells), f"{stack:>8}{spills:>8}"]))
        lines.append(f"  {item.source} needs {', '.join(sorted(item.cuda_symbols))}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(inspect_all()))
