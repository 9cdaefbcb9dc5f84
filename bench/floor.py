"""The floor of an operator on this machine: what memory and arithmetic allow, measured beside the operator itself."""

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.cpp_extension import get_cxx_compiler

ROOT = Path(__file__).resolve().parent.parent


def load_probes() -> ctypes.CDLL:
    """Compiles probes.cpp once and loads it."""
    source = ROOT / "bench/probes.cpp"
    inputs = source.read_bytes() + (ROOT / "csrc/cpu/vector.h").read_bytes()
    library = ROOT / f"build/bench/probes-{hashlib.sha256(inputs).hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        flags = [
            "-std=c++20",
            "-O3",
            "-ffp-contract=fast",
            "-Wno-psabi",
            "-shared",
            "-fPIC",
            "-pthread",
            f"-I{ROOT}/csrc",
        ]
        subprocess.run([get_cxx_compiler(), *flags, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def memory_probes(rows: list[torch.Tensor], threads: int) -> dict[str, tuple[Callable[[], None], int]]:
    """The three access patterns over K float32 rows of equal length.

    Args:
        rows: K contiguous float32 tensors [N].
        threads: threads to use.

    Returns:
        name -> (function, bytes it moves).
    """
    library = load_probes()
    out = torch.empty_like(rows[0])
    pointers = (ctypes.c_void_p * len(rows))(*(row.data_ptr() for row in rows))
    arguments = (pointers, ctypes.c_int64(len(rows)), ctypes.c_int64(rows[0].numel()), threads)
    size = rows[0].numel() * 4
    moved = {"probe_read": len(rows) * size, "probe_copy": 2 * len(rows) * size, "probe_blend": (len(rows) + 1) * size}

    def probe(name: str) -> Callable[[], None]:
        function = getattr(library, name)
        return lambda: function(*arguments, ctypes.c_void_p(out.data_ptr()))

    return {name: (probe(name), count) for name, count in moved.items()}
