"""Random calls of the list operators' CPU kernels, built with AddressSanitizer and UBSan.

    python python_tests/fuzz.py --seconds 60 [--seed 0]

Valid calls are compared with the operators' oracles, spoiled ones with the reference, word for word. The kernels are
compiled into a library of their own; a child process loads it in place of mtl_ext._C, with the sanitizer preloaded.
Torch is not instrumented, but its memory comes from the sanitizer's allocator: a kernel that touches a byte beyond a
tensor's storage is caught.
"""

import argparse
import functools
import os
import random
import subprocess
import sys
import time
import types
from collections import Counter
from pathlib import Path

import torch

# The operators that take lists in this file's random forms; the others take the rows of their own tests.
LISTED = ("gram", "combine", "combine_", "graddrop", "graddrop_", "graddrop_features")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def rearranged(draw, grad):
    """The same values in another place or order, or no gradient at all."""
    way = draw.randrange(8)
    if way == 0:
        return grad.new_empty(0)
    if way == 1:
        return torch.cat([grad.new_zeros(1), grad.flatten()])[1:].reshape(grad.shape)
    if way == 2 and grad.dim() > 1:
        return grad.transpose(0, -1).contiguous().transpose(0, -1)
    if way == 3:
        return torch.stack([grad, grad], -1)[..., 1]
    if way == 4 and grad.numel():
        return grad.flatten()[:1].reshape([1] * grad.dim()).expand(grad.shape)
    return grad


def random_shape(draw, *, batched):
    size = 70001 if draw.random() < 0.02 else draw.choice((1, 3, 7, 8, 31, 64, 65, 257, 512, 1031))
    shape = [size] if size > 1000 else [draw.randrange(0, 6), size] if draw.random() < 0.5 else [size]
    if batched:
        return [draw.randrange(1, 20 if size < 2000 else 3), *shape]
    return [] if draw.random() < 0.1 else shape


def random_list(draw, *, batched=False):
    """Task-major gradients of K tasks: grads, K."""
    num_tasks = draw.choice((1, 2, 3, 4, 5, 7, 8, 9, 13))
    columns = []
    for _ in range(draw.randrange(1, 5)):
        shape, dtype = random_shape(draw, batched=batched), draw.choice(DTYPES)
        columns.append([rearranged(draw, torch.randn(shape).to(dtype)) for _ in range(num_tasks)])
    return [column[k] for k in range(num_tasks) for column in columns], num_tasks


def likes(grads, num_params):
    """A tensor of every parameter's shape and dtype."""
    return [next((g for g in grads[p::num_params] if g.numel()), grads[p]) for p in range(num_params)]


def random_draw(draw, grads, num_tasks, *, per_sample=False):
    """Arguments seed, uniform, leak, sigmoid and kappa."""
    shapes = [
        like.shape[1:] if per_sample and like.numel() else like.shape for like in likes(grads, len(grads) // num_tasks)
    ]
    seeded = draw.random() < 0.5
    seed = torch.tensor([draw.randrange(-(2**62), 2**62), draw.randrange(2**31)]) if seeded else None
    uniform = [] if seeded else [torch.rand(shape) for shape in shapes]
    leak = torch.rand(num_tasks, dtype=torch.float64) if draw.random() < 0.5 else None
    return seed, uniform, leak, draw.random() < 0.2, draw.choice((1.0, 0.7, 3.0))


def listed_call(draw):
    """The name of an operator on task-major lists and random arguments."""
    op = draw.choice(LISTED)
    grads, num_tasks = random_list(draw, batched=op == "graddrop_features")
    num_params = len(grads) // num_tasks
    if op == "gram":
        groups = [draw.randrange(num_params) for _ in range(num_params)] if draw.random() < 0.5 else None
        return op, [grads, num_tasks, groups]
    out = [rearranged_out(draw, torch.randn(like.shape).to(like.dtype)) for like in likes(grads, num_params)]
    accumulate = draw.random() < 0.5
    if op.startswith("combine"):
        weights = torch.randn((num_params, num_tasks) if draw.random() < 0.5 else num_tasks, dtype=torch.float64)
        weights[torch.rand(weights.shape) < 0.2] = 0.0
        return op, [out, grads, weights, accumulate] if op == "combine_" else [grads, weights]
    if op == "graddrop_features":
        features = [rearranged_out(draw, tensor) for tensor in out]
        return op, [grads, num_tasks, features, *random_draw(draw, grads, num_tasks, per_sample=True)]
    arguments = [grads, num_tasks, *random_draw(draw, grads, num_tasks)]
    return op, [out, *arguments, accumulate] if op == "graddrop_" else arguments


def rearranged_out(draw, tensor):
    """A dense tensor of another memory order, sometimes."""
    return tensor.mT.contiguous().mT if tensor.dim() > 1 and draw.random() < 0.3 else tensor


def spoiled(draw, arguments):
    """The arguments with one or two of them changed."""
    arguments = list(arguments)
    for _ in range(draw.choice((1, 2))):
        place = draw.randrange(len(arguments))
        value = arguments[place]
        if isinstance(value, list) and value:
            value = list(value)
            index = draw.randrange(len(value))
            if draw.random() < 0.3:
                del value[index]
            else:
                value[index] = spoiled_leaf(draw, value[index])
            arguments[place] = value if value else arguments[place]
        else:
            arguments[place] = spoiled_leaf(draw, value)
    return arguments


def spoiled_leaf(draw, value):
    if isinstance(value, torch.Tensor):
        changes = (
            lambda t: t.to(draw.choice((*DTYPES, torch.int64, torch.bool))),
            lambda t: t[None],
            lambda t: t.new_empty(0),
            lambda t: t.flatten()[1:],
            lambda t: t.expand(2, *t.shape),
            lambda t: t.reshape(()) if t.numel() == 1 else t.flatten(),
        )
        return draw.choice(changes)(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return draw.choice((-1, 0, value - 1, value + 1, 2 * value, 2**40))


def outcome(function, arguments, mutates):
    """("value", results) or ("error", text) of a call on copies of the first `mutates` arguments."""
    written = [[t.clone() for t in tensors] for tensors in arguments[:mutates]]
    try:
        returned = function(*written, *arguments[mutates:])
    except RuntimeError as error:
        return "error", str(error)
    results = written if returned is None else (*written, returned)
    return "value", results[0] if len(results) == 1 else results


@functools.cache
def rows(op):
    """The argument tuples of an operator's tests."""
    from op_cases import CASES

    inputs = CASES[op].inputs(0, "cpu").values()
    return [arguments if isinstance(arguments, tuple) else (arguments,) for arguments in inputs]


def fuzz(library, seconds, seed):
    """Calls until the time is over; prints what was called."""
    sys.modules["mtl_ext._C"] = types.ModuleType("mtl_ext._C")  # the sanitized library comes in its place
    torch.ops.load_library(library)
    from op_cases import CASES

    from mtl_ext import ops

    others = sorted(set(CASES) - set(LISTED))
    counts = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        draw = random.Random(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(draw.choice((1, 2, 3)))
        if draw.random() < 0.6:
            op, arguments = listed_call(draw)
        else:
            op = draw.choice(others)
            arguments = draw.choice(rows(op))
        case = CASES[op]
        assert ops.has_kernel(op, "cpu"), op
        kernel = getattr(torch.ops.mtl_ext, op).default
        try:
            if draw.random() < 0.5:
                kind, result = outcome(kernel, arguments, case.mutates)
                assert kind == "value", result
                case.check(tuple(arguments), result)
            else:
                arguments = spoiled(draw, arguments)
                kind, found = outcome(kernel, arguments, case.mutates)
                kind_of_reference, expected = outcome(ops.OPERATORS[op].reference, arguments, case.mutates)
                assert kind == kind_of_reference, (found, expected)
                assert kind == "value" or found == expected, (found, expected)
        except AssertionError as error:
            raise AssertionError(f"{op}, --seed {seed}") from error
        counts[f"{op} {kind}"] += 1
        seed += 1
    print(f"{sum(counts.values())} calls: {dict(sorted(counts.items()))}")


def run(seconds, seed=0):
    """Builds the library and starts the child; returns the finished process."""
    from emulation import toolchain

    library = toolchain.build_with_torch("kernels.so", [], "address", "-shared")
    # With the C++ library, or the sanitizer would not find the exceptions that it wraps.
    preloaded = [toolchain.library_file(name) for name in ("libasan.so", "libstdc++.so")]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(preloaded),
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join([str(toolchain.ROOT), str(toolchain.ROOT / "python_tests")]),
    }
    arguments = ["--library", str(library), "--seconds", str(seconds), "--seed", str(seed)]
    return subprocess.run(
        [sys.executable, str(Path(__file__)), *arguments], env=environment, capture_output=True, text=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first call; the others count on from it")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        fuzz(options.library, options.seconds, options.seed)
        return
    done = run(options.seconds, options.seed)
    print(done.stdout + done.stderr, end="")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
