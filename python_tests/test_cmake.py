"""CMake and setup.py build the same library."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REGISTERED = """
import sys, torch
from importlib.machinery import ExtensionFileLoader
sys.modules["mtl_ext._C"] = ExtensionFileLoader("mtl_ext._C", sys.argv[1]).load_module()
from mtl_ext import ops
print(sorted((name, device) for name in ops.OPERATORS for device in ("cpu", "cuda") if ops.has_kernel(name, device)))
"""


def test_both_register_the_same_kernels():
    libraries = [ROOT / "build/cmake/_C.abi3.so", next((ROOT / "mtl_ext").glob("_C*.so"), None)]
    if not libraries[0].exists() or libraries[1] is None:
        pytest.skip("run `make cmake` and `make test` to compare their libraries")
    registered = [
        subprocess.run([sys.executable, "-c", REGISTERED, path], check=True, capture_output=True, text=True).stdout
        for path in libraries
    ]
    assert registered[0] == registered[1] != "[]\n"
