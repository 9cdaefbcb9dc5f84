"""The CUDA kernels' own source under AddressSanitizer with UBSan, and under ThreadSanitizer.

An operator takes part with the file ``emulation/sanitize_<op>.cpp``.
"""

from functools import cache
from pathlib import Path

import pytest
from emulation import toolchain

FOLDER = Path(toolchain.__file__).parent
OPERATORS = sorted(path.stem for path in (toolchain.CSRC / "cuda").glob("*.cu"))

pytestmark = toolchain.needs_compiler


@cache
def driver(op: str, flavour: str) -> Path:
    sources = [FOLDER / "sanitize_main.cpp", FOLDER / f"sanitize_{op}.cpp", toolchain.CSRC / "cuda" / f"{op}.cu"]
    return toolchain.build(f"sanitize_{op}", sources, flavour)


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("flavour", ["address", "thread"])
def test_kernel_is_clean(flavour, op):
    threads = 1 if flavour == "thread" else 2  # ThreadSanitizer needs no concurrency, and fibers cost it much
    done = toolchain.run(driver(op, flavour), order="rand", threads=threads)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
