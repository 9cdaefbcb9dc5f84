"""Bounds on what the compiler makes of the CUDA kernels, and rules of their source. No GPU is needed."""

import re
import sys
from pathlib import Path

import pytest
from conftest import require_or_skip

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import cuda_static  # noqa: E402

CUDA_SOURCES = sorted([*(ROOT / "csrc/cuda").glob("*.cu"), *(ROOT / "csrc/cuda").glob("*.cuh")])

# Registers of a thread, on any architecture. A multiprocessor has 65,536: at 64 each, 1,024 threads live there.
REGISTERS = {
    r"gram_registers_kernel<\w+, 2>": 64,
    r"gram_registers_kernel<\w+, 4>": 128,
    r"gram_registers_kernel<\w+, 8>": 168,
    r"gram_staged_kernel<\w+>": 128,
    r"gram_finish_kernel<\d+>": 32,
    r"combine_kernel<\w+>": 64,
    r"graddrop_kernel<\w+>": 80,
    r"graddrop_features_kernel<\w+>": 128,
    r"pcgrad_kernel": 64,
    r"gradvac_kernel": 64,
    r"project_simplex_kernel": 64,
    # One warp to a block, whose shared memory decides how many blocks fit.
    r"kxk_kernel<\w+>": 168,
    r"perturb_norm_kernel<\w+>": 48,
    r"perturb_eps_kernel": 32,
    r"perturb_kernel<\w+>": 112,
    r"finite_difference_kernel<\w+>": 128,
    r"saliency_(sum|map)_kernel<\w+>": 80,
    r"saliency_mean_kernel": 32,
}
# 128-bit loads that a thread has in flight at least.
VECTOR_LOADS = {
    r"gram_registers_kernel<\w+, \d>": 8,
    r"gram_staged_kernel<\w+>": 4,
    r"combine_kernel<(double|float)>": 3,
    r"combine_kernel<(bfloat16|float16)>": 2,
    r"graddrop_kernel<\w+>": 8,
    r"graddrop_features_kernel<\w+>": 5,
    r"perturb_norm_kernel<(double|float)>": 4,
    r"perturb_norm_kernel<(bfloat16|float16)>": 2,
    r"perturb_kernel<\w+>": 4,
    r"finite_difference_kernel<\w+>": 6,
    r"saliency_(sum|map)_kernel<double>": 2,
    r"saliency_(sum|map)_kernel<(float|bfloat16|float16)>": 4,
}
# What launches, error checks, shared-memory limits and nvcc's own registration need. No copy, no allocation, no event,
# nothing that waits: a CUDA graph can capture every launcher.
CUDA_SYMBOLS = {
    "cudaGetLastError",
    "cudaGetErrorString",
    "cudaFuncSetAttribute",
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "__cudaGetKernel",
    "__cudaLaunchKernel",
    "__cudaPopCallConfiguration",
    "__cudaPushCallConfiguration",
    "__cudaRegisterFatBinary",
    "__cudaRegisterFatBinaryEnd",
    "__cudaRegisterFunction",
    "__cudaUnregisterFatBinary",
}


@pytest.fixture(scope="module")
def objects():
    require_or_skip(cuda_static.find_nvcc() is not None, "nvcc is not installed")
    require_or_skip(cuda_static.find_cuobjdump() is not None, "cuobjdump and nvdisasm are not installed")
    return cuda_static.inspect_all()


@pytest.fixture(scope="module")
def kernels(objects):
    return [kernel for item in objects for kernel in item.kernels]


def bound(table, name):
    found = [limit for pattern, limit in table.items() if re.fullmatch(pattern, name)]
    return found[0] if found else None


def faults(kernels, is_fault):
    return [f"{kernel.name} {kernel.architecture}" for kernel in kernels if is_fault(kernel)]


def test_every_source_holds_kernels_for_every_architecture(objects):
    for item in objects:
        names = {kernel.name for kernel in item.kernels}
        compiled = {(kernel.name, kernel.architecture) for kernel in item.kernels}
        assert names
        assert compiled == {(name, architecture) for name in names for architecture in cuda_static.ARCHITECTURES}
        assert item.ptx == ["sm_100"]


def test_nothing_lies_on_the_stack(kernels):
    assert not faults(kernels, lambda kernel: kernel.stack or kernel.spills or kernel.count("LDL", "STL"))


def test_memory_is_addressed_as_global_or_shared(kernels):
    assert not faults(kernels, lambda kernel: kernel.count("LD", "ST"))


def test_registers_stay_within_budget(kernels):
    assert not faults(kernels, lambda kernel: kernel.registers > bound(REGISTERS, kernel.name))


def test_vector_kernels_have_enough_loads_in_flight(kernels):
    vector_kernels = [kernel for kernel in kernels if bound(VECTOR_LOADS, kernel.name)]
    assert {kernel.name.split("<")[0] for kernel in vector_kernels} == {
        "combine_kernel",
        "finite_difference_kernel",
        "graddrop_kernel",
        "graddrop_features_kernel",
        "gram_registers_kernel",
        "gram_staged_kernel",
        "perturb_kernel",
        "perturb_norm_kernel",
        "saliency_map_kernel",
        "saliency_sum_kernel",
    }
    assert not faults(vector_kernels, lambda k: k.vector_loads_in_flight() < bound(VECTOR_LOADS, k.name))


def test_shared_memory_is_dynamic(kernels):
    assert not faults(kernels, lambda kernel: kernel.static_shared)


def test_sums_use_no_atomics(kernels):
    assert not faults(kernels, lambda kernel: kernel.count("RED", "REDG", "ATOM", "ATOMG", "ATOMS"))


def test_launchers_need_only_launches(objects):
    for item in objects:
        assert item.cuda_symbols <= CUDA_SYMBOLS, item.source


@pytest.mark.parametrize("path", CUDA_SOURCES, ids=lambda path: path.name)
def test_kernel_source_is_torch_free_and_portable(path):
    text = path.read_text()
    assert not re.search(r'#include\s*[<"](torch|ATen|c10)/', text)
    if path.name != "launch.cuh":
        assert "__shared__" not in text
        assert "<<<" not in text
        assert "__CUDACC__" not in text
