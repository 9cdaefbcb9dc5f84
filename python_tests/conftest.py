"""Options and fixtures shared by all tests."""

import os

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device the operators run on: cpu or cuda")


@pytest.fixture(scope="session")
def device(request):
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def one_thread():
    """Two busy threads on shared cores can be 14 times slower than one; tests that need more say so."""
    torch.set_num_threads(1)


def require_or_skip(condition, reason):
    """Skips where a kernel is missing, unless MTL_EXT_REQUIRE_KERNELS=1, where a skip would hide it."""
    if condition:
        return
    if os.environ.get("MTL_EXT_REQUIRE_KERNELS") == "1":
        pytest.fail(f"MTL_EXT_REQUIRE_KERNELS=1, but {reason}")
    pytest.skip(reason)
