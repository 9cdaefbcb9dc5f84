"""One schema for everything measured, one folder of CSV files per machine; plots and tables read nothing else."""

import csv
import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
MET, MISSED, MISSING, BROKEN = "met", "MISSED", "MISSING", "PROBE TOO SLOW"


@dataclass
class Record:
    """One line of a CSV file; empty fields do not apply.

    Attributes:
        table: the program that measured it.
        op: an operator, a method, or what else was timed.
        impl: kernel, reference, compiled, foreach, torchjd.
        K: tasks.
        P: parameter tensors.
        N: scalars of one task.
        min_ms: minimum over rounds; the ratios below are between minima of one run.
        fraction_of_floor: floor over `min_ms`.
        fraction_of_bytes: the same for memory alone.
        limit: what the floor is made of: bytes, flops, philox, logarithms.
        peak_mb: memory beyond the arguments.
        quantity: what `value` is: a ratio to something, nanoseconds per element.
        target: for `value`, or for `fraction_of_floor` where there is no `quantity`; see `verdict`.
        verdict: met, MISSED, MISSING (no kernel), PROBE TOO SLOW (a fraction above 1.05); empty without a target.
        busy_cores: what others used when the run began.
    """

    table: str
    op: str
    impl: str = "kernel"
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 1
    K: int | None = None
    P: int | None = None
    N: int | None = None
    min_ms: float | None = None
    p20_ms: float | None = None
    p50_ms: float | None = None
    p80_ms: float | None = None
    gb_per_s: float | None = None
    gflop_per_s: float | None = None
    fraction_of_floor: float | None = None
    fraction_of_bytes: float | None = None
    limit: str = ""
    peak_mb: float | None = None
    quantity: str = ""
    value: float | None = None
    target: str = ""
    verdict: str = ""
    busy_cores: float | None = None
    machine: str = ""
    torch: str = ""
    torchjd: str = ""
    commit: str = ""

    def __post_init__(self) -> None:
        for name, value in versions().items():
            setattr(self, name, value)


@functools.cache
def versions() -> dict[str, str]:
    """Machine, library versions and commit, the same on every line."""
    try:
        torchjd = importlib.metadata.version("torchjd")
    except importlib.metadata.PackageNotFoundError:
        torchjd = ""
    describe = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "machine": machine_name(),
        "torch": torch.__version__,
        "torchjd": torchjd,
        "commit": describe.stdout.strip(),
    }


def machine_name() -> str:
    """Processor, cores and widest vectors: what results are filed under."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    fields_found = (
        re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE) for key in ("model name", "cpu family", "model")
    )
    model = " ".join(found[1] for found in fields_found if found) or platform.machine()
    vectors = next((name for name in ("avx512f", "avx2") if name in text), "")
    return re.sub(r"[^a-z0-9]+", "-", f"{model} {os.cpu_count()} cores {vectors}".lower()).strip("-")


def verdict(value: float, target: str) -> str:
    """Whether ``value`` satisfies a target such as ``>=0.9`` or ``<=1.15``."""
    bound = float(target[2:])
    return MET if (value >= bound if target.startswith(">=") else value <= bound) else MISSED


def missing(table: str, op: str, **known: object) -> Record:
    """The line of an operator that has no kernel here."""
    return Record(table, op, verdict=MISSING, **known)  # type: ignore[arg-type]


def write(table: str, records: Iterable[Record]) -> Path:
    """Writes a program's lines to this machine's folder."""
    path = RESULTS / machine_name() / f"{table}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Record)])
        writer.writeheader()
        for record in records:
            line = asdict(record)
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()})
    return path


def read(machine: str | None = None) -> list[dict[str, str]]:
    """All lines of a machine, as text."""
    lines = []
    for path in sorted((RESULTS / (machine or machine_name())).glob("*.csv")):
        with open(path, newline="") as file:
            lines.extend(csv.DictReader(file))
    return lines


def print_table(columns: dict[str, int], lines: Iterable[Iterable[object]]) -> None:
    """Prints lines as they come: floats with three digits, empty for None."""
    print("  ".join(name.rjust(width) for name, width in columns.items()))
    for line in lines:
        print(format_line(columns, line), flush=True)


def format_line(columns: dict[str, int], values: Iterable[object]) -> str:
    """One line of a table."""
    texts = ("" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v) for v in values)
    return "  ".join(text.rjust(width) for text, width in zip(texts, columns.values(), strict=True))


def finish(found: list[Record]) -> None:
    """Ends a program: counts the targets, and fails for missing kernels and for probes slower than what they bound.

    Raises:
        SystemExit: something is missing or a probe is wrong; a target that is merely missed is only reported.
    """
    counts = {kind: sum(record.verdict == kind for record in found) for kind in (MET, MISSED, MISSING, BROKEN)}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if counts[MISSING] or counts[BROKEN]:
        sys.exit(1)
