"""What a call costs when there is nothing to compute: 8 x 200 tensors of 10 elements, for every operator on lists.

    python -m bench.overhead [--rounds 300]

The kernel's own share is the call's time less that of the same call on empty tensors, which crosses the dispatcher and
is validated but holds no column.
"""

import argparse

import torch

from bench import records
from bench.records import Record, verdict
from bench.rows import ROWS, Lists, make_lists
from bench.timing import interleaved, percentiles, wait_until_quiet

TASKS, PARAMS, ELEMENTS = 8, 200, 10
CALL_MS, KERNEL_MS = "<=1", "<=0.1"
TABLE = {"op": 18, "K": 2, "P": 3, "ms per call": 11, "target": 7, "verdict": 8, "ms of the kernel": 16}
TABLE |= {"target ": 7, "verdict ": 8}


def tiny_lists() -> tuple[Lists, Lists]:
    """The lists of a call, and the same of empty tensors."""
    full = make_lists(TASKS, [ELEMENTS] * PARAMS)
    return full, make_lists(TASKS, [0] * PARAMS)


def measure(op: str, rounds: int) -> list[Record]:
    """The call and the kernel's share of it."""
    full, empty = tiny_lists()
    ROWS[op].check(full)
    times = interleaved({"call": ROWS[op].call(full), "empty": ROWS[op].call(empty)}, rounds)
    call = min(times["call"])
    sizes = {"K": TASKS, "P": PARAMS, "N": PARAMS * ELEMENTS}
    values = {"ms per call": (call, CALL_MS), "ms of the kernel": (call - min(times["empty"]), KERNEL_MS)}
    return [
        Record(
            "overhead",
            op,
            **sizes,
            **percentiles(times["call"]),
            quantity=quantity,
            value=value,
            target=target,
            verdict=verdict(value, target),
        )
        for quantity, (value, target) in values.items()
    ]


def main() -> None:
    """Measures, prints and records.

    Raises:
        SystemExit: a kernel is missing.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer calls")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 50
    torch.set_num_threads(1)
    busy = wait_until_quiet(options.wait)
    print(f"{TASKS} x {PARAMS} tensors of {ELEMENTS} elements, minima of {options.rounds} calls")
    records.print_table(TABLE, ())
    found: list[Record] = []
    for op, row in ROWS.items():
        lines = measure(op, options.rounds) if row.available() else [records.missing("overhead", op)]
        for line in lines:
            line.busy_cores = busy
        found.extend(lines)
        cells = [cell for line in lines for cell in (line.value, line.target, line.verdict)]
        cells = [op, TASKS, PARAMS, *cells, *[None] * (6 - len(cells))]
        print(records.format_line(TABLE, cells), flush=True)
    print(f"written to {records.write('overhead', found)}")
    records.finish(found)


if __name__ == "__main__":
    main()
