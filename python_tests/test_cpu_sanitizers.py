"""The CPU kernels and their validator under AddressSanitizer with UBSan, and under ThreadSanitizer."""

import os
import subprocess

import fuzz
from emulation import toolchain

from mtl_ext import ops

pytestmark = toolchain.needs_compiler


def test_random_calls_are_clean():
    """A few seconds of what `python python_tests/fuzz.py --seconds 60` does for longer."""
    done = fuzz.run(seconds=6)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr


def run_races(*arguments):
    driver = toolchain.build_with_torch("races", [toolchain.ROOT / "python_tests/emulation/races.cpp"], "thread")
    command = [*toolchain.fixed_addresses(), str(driver), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_kernels_have_no_races():
    done = run_races(*(operator.name + operator.schema for operator in ops.OPERATORS.values()))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_planted_race_is_found():
    done = run_races("planted")
    assert done.returncode == toolchain.EXIT_STATUS["thread"]
    assert "data race" in done.stderr
    assert "races.cpp" in done.stderr
