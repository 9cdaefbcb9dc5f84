"""Times the operators against this machine's floor: probes and operators alternate in one process.

    python -m bench.run [--quick] [--op gram ...] [--tasks 2 3 8 20 40] [--params 60 200] [--threads 1 2] [--rounds 12]

Prints what fraction of the floor the kernels reach, next to the targets, and writes bench/results/<machine>/floor.csv.
"""

import argparse
import sys
from collections.abc import Callable

import torch

from bench import records
from bench.floor import MEMORY, best_rates, compute_probes, floors, memory_probes
from bench.records import BROKEN, Record, verdict
from bench.rows import CHECKED_COLUMNS, COLUMNS, ROWS, Lists, Row, make_lists, resnet_sizes
from bench.timing import Times, interleaved, percentiles, wait_until_quiet

# A probe that neighbours slowed down in all rounds gets more of them, up to so many times.
MOST_REPEATS = 5
# Time of gram on bfloat16 over that on float32.
HALF_TARGETS = {2: "<=1", 3: "<=1", 8: "<=1", 20: "<=1.15", 40: "<=1.15"}
TABLE = {
    "op": 18,
    "dtype": 8,
    "K": 2,
    "P": 3,
    "N": 8,
    "threads": 7,
    "min ms": 7,
    "p80/min": 7,
    "GB/s": 6,
    "of floor": 8,
    "of bytes": 8,
    "limit": 10,
    "also": 30,
    "target": 7,
    "verdict": 14,
}


def measure(rows: list[Row], lists: Lists, threads: int, rounds: int) -> list[Record]:
    """All operators of one configuration, in alternation with the probes of its floor."""
    torch.set_num_threads(threads)
    probes = {**memory_probes(lists.grads, lists.out, threads), **compute_probes(threads)}
    functions: dict[str, Callable[[], object]] = {name: probe.function for name, probe in probes.items()}
    halves = lists.to(torch.bfloat16) if any(row.op == "gram" for row in rows) else None
    if halves is not None:
        functions["gram bfloat16"] = ROWS["gram"].call(halves)
    functions["fill"] = lambda: [torch.empty(size).fill_(0) for size in lists.sizes]
    functions.update({row.op: row.call(lists) for row in rows})
    times: Times = {name: [] for name in functions}
    for _ in range(MOST_REPEATS):
        for name, more in interleaved(functions, rounds).items():
            times[name] += more
        rates = best_rates(probes, {name: min(times[name]) for name in probes})
        found = [record(row, lists, threads, times, rates) for row in rows]
        if all(line.verdict != BROKEN for line in found):
            break
    found += [rate_record(resource, rate, lists, threads) for resource, rate in rates.items()]
    if halves is not None:
        found.append(half_record(halves, threads, times))
    return found


def record(row: Row, lists: Lists, threads: int, times: Times, rates: dict[str, float]) -> Record:
    """One operator's line."""
    work, best = row.work(lists), min(times[row.op])
    costs = floors(work, rates)
    limit = max(costs, key=costs.__getitem__)
    line = Record(
        "floor",
        row.op,
        threads=threads,
        K=lists.num_tasks,
        P=len(lists.sizes),
        N=lists.columns,
        **percentiles(times[row.op]),
        gb_per_s=work.moved / best / 1e6,
        gflop_per_s=work.flops / best / 1e6,
        fraction_of_floor=costs[limit] / best,
        fraction_of_bytes=costs[MEMORY] / best,
        limit=limit,
    )
    if row.allocates:
        line.quantity, line.value = "x empty().fill_()", best / min(times["fill"])
    if work.logarithms:
        line.quantity, line.value = "ns per logarithm", 1e6 * best * threads / work.logarithms
    target = row.target(lists.num_tasks)
    if target is not None:
        line.target, line.verdict = target.text, verdict(getattr(line, target.quantity), target.text)
    if line.fraction_of_floor is not None and line.fraction_of_floor > 1.05:
        line.verdict = BROKEN
    return line


def rate_record(resource: str, rate: float, lists: Lists, threads: int) -> Record:
    """A line for what the machine itself can do, in 1e9 per second."""
    sizes = {"K": lists.num_tasks, "P": len(lists.sizes), "N": lists.columns}
    quantity = f"1e9 {resource} per second"
    return Record("floor", "machine", "probe", threads=threads, **sizes, quantity=quantity, value=rate / 1e6)


def half_record(halves: Lists, threads: int, times: Times) -> Record:
    """The line of gram on bfloat16, measured by its float32 time."""
    best, target = min(times["gram bfloat16"]), HALF_TARGETS[halves.num_tasks]
    ratio = best / min(times["gram"])
    return Record(
        "floor",
        "gram",
        dtype="bfloat16",
        threads=threads,
        K=halves.num_tasks,
        P=len(halves.sizes),
        N=halves.columns,
        **percentiles(times["gram bfloat16"]),
        gb_per_s=sum(grad.nbytes for grad in halves.grads) / best / 1e6,
        quantity="x time of float32",
        value=ratio,
        target=target,
        verdict=verdict(ratio, target),
    )


def shown(line: Record) -> tuple[object, ...]:
    """The cells of a printed line."""
    also = f"{line.value:.2f} {line.quantity}" if line.value is not None else None
    spread = line.p80_ms / line.min_ms if line.p80_ms and line.min_ms else None
    sizes = (line.op, line.dtype, line.K, line.P, line.N, line.threads)
    fractions = (line.fraction_of_floor, line.fraction_of_bytes, line.limit)
    return *sizes, line.min_ms, spread, line.gb_per_s, *fractions, also, line.target, line.verdict


def main() -> None:
    """Checks, times, prints and records.

    Raises:
        SystemExit: a kernel is missing, or a probe is slower than what it bounds.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two lists, one thread, few rounds: to see that it works")
    parser.add_argument("--op", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--tasks", nargs="*", type=int, default=list(COLUMNS), choices=list(COLUMNS))
    parser.add_argument("--params", nargs="*", type=int, default=[60, 200])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--wait", type=float, default=60.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    if options.quick:
        options.tasks, options.params, options.threads, options.rounds = [2, 8], [60], [1], 5
    found: list[Record] = [records.missing("floor", op) for op in options.op if not ROWS[op].available()]
    busy = wait_until_quiet(options.wait)
    print(f"{records.machine_name()}, torch {torch.__version__}, minima of {options.rounds} interleaved rounds")
    records.print_table(TABLE, map(shown, found))
    for num_tasks in options.tasks:
        rows = [ROWS[op] for op in options.op if ROWS[op].available()]
        rows = [row for row in rows if row.num_tasks is None or num_tasks in row.num_tasks]
        for num_params in options.params:
            if not rows:
                continue
            small = make_lists(num_tasks, resnet_sizes(num_params, CHECKED_COLUMNS))
            for row in rows:
                row.check(small)
            lists = make_lists(num_tasks, resnet_sizes(num_params, COLUMNS[num_tasks]))
            for threads in options.threads:
                for line in measure(rows, lists, threads, options.rounds):
                    line.busy_cores = busy
                    found.append(line)
                    print(records.format_line(TABLE, shown(line)), flush=True)
    print(f"written to {records.write('floor', found)}")
    records.finish(found)


if __name__ == "__main__":
    sys.exit(main())
