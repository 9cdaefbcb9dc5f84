"""The roofline of this machine and where the operators stand, from floor.csv: `python -m bench.roofline`."""

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from bench import records
from bench.records import RESULTS

MARKERS = "os^vD*PX"


def points(lines: list[dict[str, str]], threads: str) -> dict[str, list[tuple[float, float]]]:
    """Op -> (flops per byte, GFLOP/s) of its float32 lines."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if line["table"] == "floor" and line["threads"] == threads and line["gflop_per_s"]:
            flops, moved = float(line["gflop_per_s"]), float(line["gb_per_s"])
            if flops > 0:
                found.setdefault(line["op"], []).append((flops / moved, flops))
    return found


def roofs(lines: list[dict[str, str]], threads: str) -> tuple[float, float]:
    """The best GB/s and GFLOP/s of the probes."""
    mine = [line for line in lines if line["table"] == "floor" and line["threads"] == threads]
    rates = (
        max(float(line["value"]) for line in mine if line["quantity"] == f"1e9 {resource} per second")
        for resource in ("bytes", "flops")
    )
    return next(rates), next(rates)


def draw(lines: list[dict[str, str]], path: Path) -> None:
    """One panel per number of threads."""
    threads = sorted({line["threads"] for line in lines if line["table"] == "floor" and line["gb_per_s"]})
    figure, panels = plt.subplots(1, len(threads), figsize=(6 * len(threads), 4.5), squeeze=False)
    for axes, count in zip(panels[0], threads, strict=True):
        memory, product = roofs(lines, count)
        intensity = sorted([1 / 32, 32.0, product / memory])
        axes.loglog(intensity, [min(memory * x, product) for x in intensity], color="black")
        for marker, (op, places) in zip(MARKERS, points(lines, count).items(), strict=False):
            axes.loglog(*zip(*places, strict=True), marker, label=op, alpha=0.7)
        axes.set(xlabel="flops per byte", ylabel="GFLOP/s", title=f"{count} thread{'s' * (count != '1')}")
        axes.legend(fontsize="small")
        axes.grid(which="both", alpha=0.2)
    figure.suptitle(f"{lines[0]['machine']}: {lines[0]['commit']}", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Draws the plot of a machine's results.

    Raises:
        SystemExit: there is none.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=records.machine_name())
    options = parser.parse_args()
    lines = records.read(options.machine)
    if not any(line["table"] == "floor" for line in lines):
        raise SystemExit(f"{RESULTS / options.machine} has no floor.csv: run python -m bench.run")
    path = RESULTS / options.machine / "roofline.png"
    draw(lines, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
