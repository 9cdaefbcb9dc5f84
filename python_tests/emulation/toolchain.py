"""Compiles sources with g++ under sanitizers, for the emulator or against torch, and runs the executables.

They are programs of their own because a sanitizer must be there from the first instruction on; preloaded into Python it
would report Python. Objects are kept in build/emulation by content, so that only the first run is slow.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
FOLDER = ROOT / "build" / "emulation"
COMPILER = "g++"
FLAGS = ["-std=c++20", "-g1", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
EMULATION = ("-DMTL_EMULATION",)
# CPU kernels as they are, against torch's stable ABI: optimised a little, or its headers cost more than the kernels.
TORCH = (
    *("-O1", "-fPIC", "-ffp-contract=fast", "-Wno-unused-parameter", "-Wno-psabi"),
    "-DTORCH_TARGET_VERSION=0x020d000000000000",
    *(f"-isystem{path}" for path in cpp_extension.include_paths()),
)
# Without optimisation no access disappears, reports name exact lines, and sanitized code compiles in half the time.
FLAVOURS = {
    "plain": ["-O1", "-Werror"],
    "address": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-O0", "-fsanitize=thread"],
}
EXIT_STATUS = {"address": 1, "thread": 66}  # of a process in which a sanitizer found something


@cache
def compiler_version() -> str | None:
    """What g++ says of itself, None without g++."""
    if shutil.which(COMPILER) is None:
        return None
    return subprocess.run([COMPILER, "--version"], capture_output=True, text=True, check=True).stdout


def library_file(name: str) -> str:
    """Path of one of the compiler's own libraries."""
    command = [COMPILER, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# Without g++ the tests are skipped, unless the kernels are required.
needs_compiler = pytest.mark.skipif(
    compiler_version() is None and os.environ.get("MTL_EXT_REQUIRE_KERNELS") != "1", reason="needs g++"
)


def included_files(source: Path) -> set[Path]:
    """The repository's files that a source includes, directly or not, itself among them."""
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        path = waiting.pop()
        found.add(path)
        for name in re.findall(r'^\s*#\s*include "([^"]+)"', path.read_text(), re.MULTILINE):
            candidates = {path.parent / name, CSRC / name}
            waiting.extend(other for other in candidates - found if other.exists())
    return found


def remember(name: str, digest: str, command: list[str]) -> Path:
    """The output of ``command + ["-o", output]``, from an earlier call if there was one of equal digest."""
    output = FOLDER / f"{name}-{digest}"
    if output.exists():
        return output
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    done = subprocess.run([*command, "-o", str(partial)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    for outdated in FOLDER.glob(f"{name}-*"):
        if outdated != partial:
            outdated.unlink(missing_ok=True)
    partial.replace(output)
    return output


def compile_object(source: Path, flavour: str, flags: tuple[str, ...] = EMULATION) -> Path:
    """Compiles one .cu or .cpp file."""
    flags = [*FLAGS, *FLAVOURS[flavour], *flags]
    content = [" ".join(flags), str(compiler_version()), *(path.read_text() for path in sorted(included_files(source)))]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
    shown = source.relative_to(ROOT)
    name = f"{flavour}-{str(shown).replace(os.sep, '-')}"
    return remember(name, digest, [COMPILER, *flags, f"-I{CSRC.relative_to(ROOT)}", "-x", "c++", "-c", str(shown)])


def build(name: str, sources: Iterable[Path], flavour: str) -> Path:
    """Compiles and links an executable.

    Args:
        name: of the executable.
        sources: .cu and .cpp files of the repository, free of torch; the emulator's engine is added.
        flavour: plain, address (AddressSanitizer and UBSan) or thread (ThreadSanitizer).
    """
    objects = [compile_object(source, flavour) for source in (CSRC / "emulation" / "engine.cpp", *sources)]
    digest = hashlib.sha256(" ".join(path.name for path in objects).encode()).hexdigest()[:16]
    command = [COMPILER, *FLAVOURS[flavour], *(str(path) for path in objects)]
    return remember(f"{flavour}-{name}", digest, command)


def build_with_torch(name: str, sources: Iterable[Path], flavour: str, *link_flags: str) -> Path:
    """Compiles the CPU kernels and `sources` and links them to torch, an executable unless the flags say otherwise."""
    kernels = sorted((CSRC / "cpu").glob("*.cpp"))
    objects = [compile_object(source, flavour, TORCH) for source in (*kernels, *sources)]
    libraries = [flag for path in cpp_extension.library_paths() for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    command = [COMPILER, *FLAVOURS[flavour], *link_flags, *(str(path) for path in objects), *libraries]
    digest = hashlib.sha256(" ".join(command).encode()).hexdigest()[:16]
    return remember(f"{flavour}-{name}", digest, [*command, "-ltorch_cpu", "-lc10"])


def run(
    executable: Path, *arguments: str, order: str = "fwd", seed: int = 1, threads: int = 2
) -> subprocess.CompletedProcess[str]:
    """Runs an executable under one schedule of the emulator."""
    controls = {"CUEMU_ORDER": order, "CUEMU_SEED": str(seed), "CUEMU_THREADS": str(threads)}
    command = [*fixed_addresses(), str(executable), *arguments]
    return subprocess.run(
        command, env={**os.environ, **controls}, cwd=ROOT, capture_output=True, text=True, timeout=120
    )


@cache
def fixed_addresses() -> list[str]:
    """A prefix that switches address randomisation off where it is too strong for ThreadSanitizer's memory map."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    strong = bits.exists() and int(bits.read_text()) > 28
    return ["setarch", "-R"] if strong else []
