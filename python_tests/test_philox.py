"""Philox4x32-10: the published answers, and the frozen layout of the draws on every implementation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from emulation import toolchain
from implementations import IMPLEMENTATIONS, find
from op_cases.graddrop import philox4x32 as numpy_philox
from op_cases.graddrop import uniform_numbers

from mtl_ext.ops.philox import philox4x32

# Random123's known answers: word that fills counter and key, the four words of the result.
KNOWN_ANSWERS = [
    (0x00000000, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    (0xFFFFFFFF, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
]


@pytest.mark.parametrize(("fill", "answer"), KNOWN_ANSWERS)
def test_known_answers(fill, answer):
    word = torch.tensor(fill)
    assert [int(value) for value in philox4x32((word,) * 4, (word,) * 2)] == answer
    assert numpy_philox(np.full(4, fill, np.uint64), (fill, fill)).tolist() == answer


@toolchain.needs_compiler
def test_host_code():
    """The header that CPU and CUDA share, and eight counters at once against one at a time."""
    executable = toolchain.build("philox_fill", [Path(toolchain.__file__).parent / "philox_fill.cpp"], "plain")
    done = toolchain.run(executable)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_draws_of_the_operator(implementation, device):
    """g = (u, u - 1) has sum 2u - 1 and magnitude 1: at the drawn u none passes, beside it one sign does."""
    function = find("graddrop", implementation, device)
    seed, step, count = -0x123456789ABCDEF, 2**32 + 5, 3001
    draws = [torch.from_numpy(uniform_numbers(seed, step, param, count)).double().to(device) for param in (0, 1)]
    for shift, expected in ((0.0, lambda u: 0 * u), (2.0**-25, lambda u: u), (-(2.0**-25), lambda u: u - 1)):
        moved = [draw + shift for draw in draws]
        grads = [*moved, *(u - 1 for u in moved)]
        out = function(grads, 2, torch.tensor([seed, step], device=device), [], None, False, 1.0)
        for found, u in zip(out, moved, strict=True):
            assert torch.equal(found[u > 0], expected(u)[u > 0])
