"""The Markdown tables of a machine's results: `python -m bench.report` writes bench/results/<machine>/report.md."""

import argparse
from collections.abc import Callable, Iterable

from bench import records
from bench.records import RESULTS

Line = dict[str, str]
MARKS = {records.MET: "", records.MISSED: "**missed**", records.MISSING: "**missing**", records.BROKEN: "**probe**"}


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(text: str) -> str:
    """Three digits, or nothing."""
    return f"{float(text):.3g}" if text else ""


def goal(line: Line) -> str:
    """A target, and whether it is missed."""
    return f"{line['target']} {MARKS.get(line['verdict'], '')}".strip()


def floor_table(lines: list[Line]) -> str:
    """Operators against the floor."""
    header = ["op", "dtype", "K", "P", "threads", "ms", "GB/s", "of the floor", "of bytes", "limit", "also", "target"]
    rows = []
    for line in lines:
        also = f"{number(line['value'])} {line['quantity']}".strip()
        cells = [line[key] for key in ("op", "dtype", "K", "P", "threads")]
        cells += [number(line[key]) for key in ("min_ms", "gb_per_s", "fraction_of_floor", "fraction_of_bytes")]
        rows.append([*cells, line["limit"], also, goal(line)])
    return table(header, rows)


def value_table(lines: list[Line]) -> str:
    """What is judged by one number: calls, peers, whole steps."""
    header = ["what", "K", "threads", "ms", "p80 ms", "peak MB", "value", "", "target"]
    keys = ("min_ms", "p80_ms", "peak_mb", "value")
    return table(
        header,
        ([x["op"], x["K"], x["threads"], *[number(x[key]) for key in keys], x["quantity"], goal(x)] for x in lines),
    )


def suite_table(lines: list[Line]) -> str:
    """Implementations next to each other."""
    header = ["op", "K", "implementation", "p20 ms", "p50 ms", "p80 ms", "GB/s", "of the floor", "peak MB"]
    keys = ("p20_ms", "p50_ms", "p80_ms", "gb_per_s", "fraction_of_floor", "peak_mb")
    return table(header, ([x["op"], x["K"], x["impl"], *[number(x[key]) for key in keys]] for x in lines))


SECTIONS: dict[str, tuple[str, Callable[[list[Line]], str]]] = {
    "floor": ("Operators against the floor", floor_table),
    "overhead": ("Calls with nothing to compute", value_table),
    "peers": ("Next to TorchJD", value_table),
    "torchjd_accelerate": ("TorchJD's own classes, accelerated", value_table),
    "step": ("Whole steps of a ResNet-18", value_table),
    "auxiliary": ("Steps with auxiliary tasks, of a half-shared ResNet-50", value_table),
    "suite": ("Implementations of one operator", suite_table),
}


def report(lines: list[Line]) -> str:
    """The whole file."""
    first = lines[0]
    busiest = max((float(line["busy_cores"]) for line in lines if line["busy_cores"]), default=0.0)
    parts = [
        f"# {first['machine']}",
        f"torch {first['torch']}, TorchJD {first['torchjd']}, commit {first['commit']}; others kept up to "
        f"{busiest:.1f} cores busy when a run began. Ratios are between minima of interleaved rounds of one process.",
    ]
    for name, (title, make) in SECTIONS.items():
        mine = [line for line in lines if line["table"] == name]
        if mine:
            parts += [f"## {title}", make(mine)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Writes the report of a machine.

    Raises:
        SystemExit: it has no results.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", default=records.machine_name())
    options = parser.parse_args()
    lines = records.read(options.machine)
    if not lines:
        raise SystemExit(f"{RESULTS / options.machine} holds no results: run make bench")
    path = RESULTS / options.machine / "report.md"
    path.write_text(report(lines))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
