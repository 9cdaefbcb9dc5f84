"""The floor of an operator on this machine: what memory and arithmetic allow, measured beside the operator itself.

``floor = max(bytes / B, flops / F, special / S)`` with B the best memory rate of some access patterns on the very
tensors that the operators read, F that of a float32 matrix product, S that of Philox words or logarithms in cache.
Reads and writes have bandwidths of their own: passes that only read are held to the best rate of reading alone.
"""

import ctypes
import hashlib
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.cpp_extension import get_cxx_compiler

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++20", "-O3", "-ffp-contract=fast", "-Wno-psabi", "-shared", "-fPIC", "-pthread", f"-I{ROOT}/csrc"]
GEMM_SIZE = 1536
# Elements that fit into the second-level cache twice; as many calls as a probe needs to last a few milliseconds.
CACHED, CACHED_CALLS = 32_768, 256
MEMORY, READING = "bytes", "bytes_read"


@dataclass(frozen=True)
class Work:
    """What an operator has to do at least.

    Attributes:
        bytes: read and written, in passes that do both.
        bytes_read: in passes that only read.
        flops: floating-point operations.
        philox: Philox words drawn.
        logarithms: taken.
    """

    bytes: float = 0
    bytes_read: float = 0
    flops: float = 0
    philox: float = 0
    logarithms: float = 0

    @property
    def moved(self) -> float:
        """All bytes."""
        return self.bytes + self.bytes_read


@dataclass(frozen=True)
class Probe:
    """A function that does `amount` of one `resource` (a field of `Work`) per call."""

    resource: str
    amount: float
    function: Callable[[], object]


class TensorList(ctypes.Structure):
    """The probes' argument, as in probes.cpp."""

    _fields_ = (
        ("tensors", ctypes.POINTER(ctypes.c_void_p)),
        ("out", ctypes.POINTER(ctypes.c_void_p)),
        ("sizes", ctypes.POINTER(ctypes.c_int64)),
        ("num_rows", ctypes.c_int64),
        ("num_params", ctypes.c_int64),
    )


def load_probes() -> ctypes.CDLL:
    """Compiles probes.cpp once and loads it."""
    source = ROOT / "bench/probes.cpp"
    headers = [ROOT / "csrc" / name for name in ("cpu/vector.h", "cpu/logarithm.h", "cpu/philox.h", "common/philox.h")]
    inputs = b"".join(path.read_bytes() for path in (source, *headers))
    library = ROOT / f"build/bench/probes-{hashlib.sha256(inputs).hexdigest()[:12]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([get_cxx_compiler(), *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def memory_probes(grads: list[torch.Tensor], out: list[torch.Tensor], threads: int) -> dict[str, Probe]:
    """The access patterns over a list: read it row by row, or K side by side; copy a row, two ways; read K, write one.

    Args:
        grads: K * P contiguous float32 tensors, task-major.
        out: P tensors of the same sizes, overwritten.
        threads: threads to use.
    """
    library = load_probes()
    columns, num_rows = sum(tensor.numel() for tensor in out), len(grads) // len(out)
    argument = TensorList(
        (ctypes.c_void_p * len(grads))(*(tensor.data_ptr() for tensor in grads)),
        (ctypes.c_void_p * len(out))(*(tensor.data_ptr() for tensor in out)),
        (ctypes.c_int64 * len(out))(*(tensor.numel() for tensor in out)),
        num_rows,
        len(out),
    )
    moved = {"read": num_rows, "read_rows": num_rows, "copy": 2, "copy_past": 2, "blend": num_rows + 1}

    def probe(name: str, rows: int) -> Probe:
        function = getattr(library, f"probe_{name}")
        resource = READING if name.startswith("read") else MEMORY
        return Probe(resource, 4 * rows * columns, lambda: function(ctypes.byref(argument), threads))

    return {name: probe(name, rows) for name, rows in moved.items()}


def compute_probes(threads: int) -> dict[str, Probe]:
    """A matrix product, Philox words and logarithms, the latter two in cache; torch's threads must be set already."""
    library = load_probes()
    a, b = (torch.rand(GEMM_SIZE, GEMM_SIZE) for _ in range(2))
    product = torch.empty_like(a)
    words = CACHED * CACHED_CALLS
    values = [torch.rand(CACHED * threads) + 0.5 for _ in range(2)]

    def logarithms() -> None:
        for _ in range(CACHED_CALLS):
            torch.log(values[0], out=values[1])

    return {
        "gemm": Probe("flops", 2 * GEMM_SIZE**3, lambda: torch.mm(a, b, out=product)),
        "philox": Probe("philox", words, lambda: library.probe_philox(ctypes.c_int64(words), threads)),
        "log": Probe("logarithms", words, lambda: library.probe_log(ctypes.c_int64(words), threads)),
        "torch.log": Probe("logarithms", words * threads, logarithms),
    }


def best_rates(probes: Mapping[str, Probe], milliseconds: Mapping[str, float]) -> dict[str, float]:
    """The best measured rate of every resource, per millisecond."""
    rates: dict[str, float] = {}
    for name, probe in probes.items():
        rate = probe.amount / milliseconds[name]
        rates[probe.resource] = max(rates.get(probe.resource, 0.0), rate)
    rates[MEMORY] = max(rates[MEMORY], rates[READING])
    return rates


def floors(work: Work, rates: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds that the work costs at least, by resource; the floor is the largest."""
    costs = {resource: getattr(work, resource) / rate for resource, rate in rates.items()}
    costs[MEMORY] += costs.pop(READING)
    return costs
