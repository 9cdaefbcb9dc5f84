"""The emulator of CUDA kernels must catch planted faults, name their line, and be silent on clean kernels."""

import re
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from emulation import toolchain
from implementations import load_emulation

SOURCE = Path(toolchain.__file__).with_name("faults.cu")
ORDERS = ["fwd", "rev", "rand"]
ABORTED = -6
WRONG_RESULT = 3

pytestmark = toolchain.needs_compiler


@cache
def faults(flavour: str) -> Path:
    return toolchain.build("faults", [SOURCE], flavour)


def fault_location(name: str) -> str:
    """``faults.cu:LINE`` of the planted fault."""
    for number, line in enumerate(SOURCE.read_text().splitlines(), start=1):
        if re.search(rf"// FAULT .*\b{name}\b", line):
            return f"{SOURCE.name}:{number + line.lstrip().startswith('//')}"
    raise LookupError(name)


def run(flavour: str, name: str, order: str = "fwd", threads: int = 2) -> CompletedProcess[str]:
    return toolchain.run(faults(flavour), name, order=order, threads=threads)


@pytest.mark.parametrize("name", ["clean_block", "clean_warp", "clean_vocabulary"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("flavour", toolchain.FLAVOURS)
def test_clean_kernel_is_silent(flavour, order, name):
    done = run(flavour, name, order)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_barrier", "divergent barrier: other threads wait at "),
        ("skipped_barrier", "divergent barrier: "),
        ("divergent_shuffle", "divergent warp function: other lanes of 0xffffffff wait at "),
        ("absent_source", "shuffle reads lane "),
        ("absent_lane", "lanes 0xffffffff include lane 16, which the block does not have"),
        ("foreign_mask", "lanes 0xfffffffe do not include the calling lane"),
        ("deadlock", "deadlock in block "),
    ],
)
def test_undefined_meeting_aborts(name, message, order):
    done = run("plain", name, order)
    assert done.returncode == ABORTED
    assert message in done.stderr
    assert re.search(r"block \(\d+,0,0\)", done.stderr)
    assert re.search(r"thread \(\d+,0,0\)", done.stderr)
    assert fault_location(name) in done.stderr


def test_lane_that_left_aborts_before_and_after_others_wait():
    early, late = run("plain", "left_lane", "fwd"), run("plain", "left_lane", "rev")
    assert early.returncode == late.returncode == ABORTED
    location = fault_location("left_lane")
    assert f"{location}: cuemu: thread (1,0,0) of block" in early.stderr
    assert "lanes 0xffffffff include lane 0, which has left the kernel" in early.stderr
    assert "deadlock" in late.stderr
    assert f"thread (1,0,0) waits at python_tests/emulation/{location} for lanes 0xffffffff" in late.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("large_block", "block is (1025,1,1), expected 1 to 1024 threads"),
        ("empty_grid", "grid is (0,1,1), expected at least 1"),
        ("large_shared", "dynamic shared memory is 101377 bytes, expected at most 101376"),
    ],
)
def test_impossible_launch_aborts(name, message):
    done = run("plain", name)
    assert done.returncode == ABORTED
    assert f"{fault_location(name)}: cuemu: launch refused: {message}" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shared_overflow", "heap-buffer-overflow"),
        ("global_overflow", "heap-buffer-overflow"),
        ("misaligned", "misaligned address"),
    ],
)
def test_wrong_access_is_found_by_address_sanitizer(name, message):
    done = run("address", name)
    assert done.returncode == toolchain.EXIT_STATUS["address"]
    assert message in done.stderr
    assert fault_location(name) in done.stderr


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["missing_barrier", "missing_second_barrier", "missing_syncwarp", "racing_blocks"])
def test_missing_order_is_found_by_thread_sanitizer(name, threads):
    done = run("thread", name, threads=threads)
    assert done.returncode == toolchain.EXIT_STATUS["thread"]
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert fault_location(name) in done.stderr


@pytest.mark.parametrize("name", ["missing_barrier", "missing_second_barrier"])
def test_missing_barrier_gives_a_wrong_result(name):
    assert WRONG_RESULT in [run("plain", name, order).returncode for order in ORDERS]


@pytest.mark.parametrize("order", ORDERS)
def test_unwritten_shared_memory_reads_as_nan(order):
    done = run("plain", "unwritten_shared", order)
    assert done.returncode == WRONG_RESULT
    assert re.search(r"out\[42\] is -?nan, expected 6", done.stderr)


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"order": "forward"}, "order is 'forward', expected fwd, rev or rand"),
        ({"seed": -1}, "CUEMU_SEED is '-1', expected a non-negative integer"),
        ({"threads": 0}, "threads is 0, expected 1 to 1024"),
    ],
)
def test_misspelt_environment_is_an_error(controls, message):
    done = toolchain.run(faults("plain"), "clean_block", **controls)
    assert done.returncode == ABORTED
    assert message in done.stderr


@pytest.fixture
def emulation_module():
    """The Python module, with its controls put back afterwards."""
    module = load_emulation()
    controls = module.get_controls()
    yield module
    module.set_controls(**controls)


def test_module_sets_controls(emulation_module):
    emulation_module.set_controls(order="rand", seed=7, threads=3)
    assert emulation_module.get_controls() == {"order": "rand", "seed": 7, "threads": 3}


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({"order": "random", "seed": 1, "threads": 1}, "order is 'random', expected fwd, rev or rand"),
        ({"order": "fwd", "seed": 1, "threads": 0}, "threads is 0, expected 1 to 1024"),
    ],
)
def test_module_refuses_bad_controls(emulation_module, controls, message):
    before = emulation_module.get_controls()
    with pytest.raises(ValueError, match=message):
        emulation_module.set_controls(**controls)
    assert emulation_module.get_controls() == before
