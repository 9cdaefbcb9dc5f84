"""Times: interleaved rounds, percentiles, and whether the machine is quiet enough to believe them."""

import ctypes
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Times = dict[str, list[float]]


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int, least_ms: float = 0.0) -> Times:
    """Milliseconds of a call of every function in each of the rounds, which visit all of them in turn.

    Args:
        functions: name -> what to time; called once before the first round.
        rounds: how often each is timed.
        least_ms: a function that is faster is called in a row for that long and its mean counts: right behind another
            function, a call of microseconds would be timed for fetching its code into the caches.
    """
    times: Times = {name: [] for name in functions}
    calls = dict.fromkeys(functions, 1)
    for round_index in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                function()
            spent = 1e3 * (time.perf_counter() - start) / calls[name]
            if round_index > 0:
                times[name].append(spent)
            elif spent < least_ms:
                calls[name] = math.ceil(least_ms / max(spent, 1e-3))
    return times


def percentiles(times: list[float]) -> dict[str, float]:
    """The CSV's four numbers about a list of times."""
    p20, p50, p80 = np.percentile(times, (20, 50, 80))
    return {"min_ms": min(times), "p20_ms": float(p20), "p50_ms": float(p50), "p80_ms": float(p80)}


def cpu_seconds() -> tuple[float, float]:
    """Seconds that all cores of this machine have spent working or stolen, and those of this process."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def busy_cores(seconds: float = 0.5) -> float:
    """How many cores others keep busy, over a short wait."""
    everyone, own = cpu_seconds()
    start = time.monotonic()
    time.sleep(seconds)
    later, own_later = cpu_seconds()
    return max(0.0, (later - everyone) - (own_later - own)) / (time.monotonic() - start)


def wait_until_quiet(limit: float, wanted: float = 0.1) -> float:
    """Waits until others use at most `wanted` cores, or for `limit` seconds.

    Returns:
        The cores that others keep busy; warns where these are too many.
    """
    start = time.monotonic()
    busy = busy_cores()
    while busy > wanted and time.monotonic() - start < limit:
        time.sleep(1.0)
        busy = busy_cores()
    verdict = "quiet" if busy <= wanted else "BUSY: times below are noise, ratios are less bad"
    print(f"machine: others keep {busy:.1f} of {os.cpu_count()} cores busy, {verdict}", flush=True)
    return busy


def peak_megabytes(function: Callable[[], object]) -> float | None:
    """By how much a call raises this process's resident memory at its peak; None where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # else memory that was freed but kept would hide what the call takes
    reset.write_text("5")
    before = status_kilobytes(status.read_text(), "VmRSS")
    result = function()
    peak = status_kilobytes(status.read_text(), "VmHWM")
    del result
    return (peak - before) / 1024


def status_kilobytes(text: str, name: str) -> int:
    """A field of /proc/self/status."""
    return int(next(line for line in text.splitlines() if line.startswith(f"{name}:")).split()[1])
