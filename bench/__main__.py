"""All benchmarks, each in a process of its own: `make bench`, or `python -m bench [--quick]`.

Prints every table, writes CSV files, a Markdown report and the roofline of this machine to bench/results/<machine>/,
and ends with the targets that are missed. Fails where a kernel is missing or a probe was slower than what it bounds.
"""

import argparse
import subprocess
import sys

from bench import records

PROGRAMS = ("run", "overhead", "peers", "torchjd_accelerate", "step", "dgr_cost", "auxiliary")
SUITE = ("-m", "pytest", "bench/test_bench.py", "-q", "--benchmark-columns=min,median,rounds")


def run(*arguments: str) -> bool:
    """Whether a Python process succeeds; its output goes to ours."""
    print(f"\n== python {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, *arguments], cwd=records.ROOT).returncode == 0


def print_misses() -> None:
    """The lines of this machine's results that have a verdict other than met."""
    missed = [line for line in records.read() if line["verdict"] not in ("", records.MET)]
    print(f"\n{len(missed)} lines are not as they should be")
    for line in missed:
        where = " ".join(f"{key}={line[key]}" for key in ("dtype", "K", "P", "threads") if line[key])
        value = line["value"] if line["quantity"] else line["fraction_of_floor"]
        what = f"{line['table']:9} {line['op']} {where}"
        print(f"  {line['verdict']:14} {what}: {value} {line['quantity']} {line['target']}")


def main() -> None:
    """Runs everything.

    Raises:
        SystemExit: something failed.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small parts of everything, to see that it works")
    options = parser.parse_args()
    failed = []
    for old in (records.RESULTS / records.machine_name()).glob("*.csv"):
        old.unlink()
    for program in PROGRAMS:
        quick = ("--quick", "--wait", "1") if options.quick else ()
        if not run("-m", f"bench.{program}", *quick):
            failed.append(program)
    suite = (*SUITE, "-k", "kernel") if options.quick else SUITE
    if not run(*suite):
        failed.append("suite")
    run("-m", "bench.report")
    run("-m", "bench.roofline")
    print_misses()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
