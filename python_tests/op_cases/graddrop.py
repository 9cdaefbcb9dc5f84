"""graddrop's and graddrop_'s rows, with Philox in NumPy."""

import numpy as np
import torch

from op_cases.common import OpCase, generator, grad_lists, list_errors, list_grads, unit_roundoff

SEED, STEP = -0x123456789ABCDEF, 3


def philox4x32(counter, key):
    """Philox4x32-10 on uint64 arrays that hold words: [..., 4] and two words to [..., 4]."""
    word = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    c0, c1, c2, c3 = (counter[..., j].astype(np.uint64) for j in range(4))
    for turn in range(10):
        low, high = (np.uint64((key[j] + turn * weyl) % 2**32) for j, weyl in enumerate((0x9E3779B9, 0xBB67AE85)))
        product0, product2 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (product2 >> shift) ^ c1 ^ low,
            product2 & word,
            (product0 >> shift) ^ c3 ^ high,
            product0 & word,
        )
    return np.stack([c0, c1, c2, c3], -1)


def uniform_numbers(seed, step, tensor, count):
    """The u of elements 0 .. count of a tensor, in the frozen layout."""
    block = np.arange((count + 3) // 4, dtype=np.uint64)
    of_all = np.ones_like(block)
    fields = [block & np.uint64(0xFFFFFFFF), block >> np.uint64(32), tensor * of_all, step % 2**32 * of_all]
    words = philox4x32(np.stack(fields, -1), (seed % 2**32, (seed >> 32) % 2**32)).reshape(-1)[:count]
    return ((words >> np.uint64(8)).astype(np.float64) * 2.0**-24).astype(np.float32)


def in_memory_order(values, like):
    """`values`, counted in the memory order of a dense tensor, as an array of its shape."""
    order = torch.arange(like.numel()).as_strided(like.shape, like.stride()).numpy()
    return values[order]


def drawn(param, seed, uniform, like):
    if seed is None:
        return uniform[param].cpu().numpy()
    seed, step = (int(value) for value in seed.tolist())
    return in_memory_order(uniform_numbers(seed, step, param, like.numel()), like)


def check_column(column, draw, leak, sigmoid, kappa, found, start, marginal=lambda value: value):
    """The mask by plain arithmetic of the column's type, the sum in extended precision.

    marginal: from a gradient to what decides its mask.
    """
    wide = np.float64 if found.dtype == torch.float64 else np.float32
    values = [grad.cpu().double().numpy().astype(wide) for grad in column if grad.numel() > 0]
    leaks = [leak[k] for k, grad in enumerate(column) if grad.numel() > 0]
    deciding = [marginal(value) for value in values]
    total, magnitude = np.zeros(draw.shape, wide), np.zeros(draw.shape, wide)
    for value in deciding:
        total, magnitude = total + value, magnitude + np.abs(value)
    threshold = wide(2) * draw.astype(wide) - wide(1)
    with np.errstate(invalid="ignore"):
        score = np.tanh(wide(kappa) * (total / magnitude)) if sigmoid else wide(kappa) * total
    bound = threshold if sigmoid else threshold * magnitude
    masks = [[(v > 0) & (score > bound) | (v < 0) & (score < bound) for v in deciding]]
    if sigmoid:  # tanh may differ by 4 ulp: where that decides, the other mask is right as well
        close = np.abs(score - bound) <= 4 * np.spacing(np.abs(score))
        assert close.sum() <= 1 + 1e-5 * close.size
        masks += [[(v > 0) & ~(score > bound) | (v < 0) & ~(score < bound) for v in deciding]]
    exactness = [is_sum(values, leaks, mask, found, start) for mask in masks]
    right = exactness[0] | (exactness[1] & close if sigmoid else False)
    assert right.all()


def is_sum(values, leaks, mask, found, start):
    """Where the result is the masked sum, within the rounding of sequential additions."""
    terms = [
        np.where(passes, 1.0, leak) * value.astype(np.longdouble)
        for value, leak, passes in zip(values, leaks, mask, strict=True)
    ]
    if start is not None:
        terms.append(start.cpu().double().numpy().astype(np.longdouble))
    exact = sum(terms)
    bound = (len(terms) + 2) * unit_roundoff(found.dtype) * sum(np.abs(term) for term in terms)
    if found.dtype in (torch.bfloat16, torch.float16):
        info = torch.finfo(found.dtype)
        bound = bound + info.eps / 2 * np.abs(exact) * 1.01 + info.smallest_normal
    return np.abs(found.cpu().double().numpy() - exact) <= bound


def check_result(grads, num_tasks, seed, uniform, leak, sigmoid, kappa, result, start=None):
    num_params = len(grads) // num_tasks
    leaks = [0.0] * num_tasks if leak is None else leak.tolist()
    assert len(result) == num_params
    for param, found in enumerate(result):
        column = grads[param::num_params]
        like = next((grad for grad in column if grad.numel() > 0), None)
        if like is None:
            assert found.numel() == 0 or (start is not None and torch.equal(found, start[param]))
            continue
        assert found.shape == like.shape
        assert found.dtype == like.dtype
        draw = drawn(param, seed, uniform, found)
        before = None if start is None else start[param]
        check_column(column, draw, leaks, sigmoid, kappa, found, before)


def variant(number, grads, num_tasks, device):
    """The arguments behind the gradients: every third row a uniform list, leaks and both f in turn."""
    num_params = len(grads) // num_tasks
    likes = [next((g for g in grads[p::num_params] if g.numel()), grads[p]) for p in range(num_params)]
    seed, uniform, leak = None, [], None
    if number % 3 == 2:
        uniform = [torch.rand(like.shape, generator=generator(number)).to(device) for like in likes]
        if number % 2:
            uniform = [draw.mT.contiguous().mT if draw.dim() == 2 else draw for draw in uniform]
    else:
        seed = torch.tensor([SEED + number, STEP], device=device)
    if number % 2:
        leak = torch.linspace(0, 1, num_tasks, dtype=torch.float64).to(device)
    return seed, uniform, leak, number % 5 == 4, (1.0, 1.0, 0.7, 2.5)[number % 4]


def graddrop_inputs(seed, device):
    lists = dict(grad_lists(seed, device))
    zero = [
        grad * (torch.arange(grad.numel(), device=device) % 3 > 0) for grad in list_grads([(999,)], 3, device=device)
    ]
    lists["zero-columns-K3"] = (zero, 3)
    return {
        name: (grads, num_tasks, *variant(seed + number, grads, num_tasks, device))
        for number, (name, (grads, num_tasks)) in enumerate(lists.items())
    }


def graddrop_into_inputs(seed, device):
    cases = {}
    for number, (name, (grads, num_tasks, *rest)) in enumerate(graddrop_inputs(seed, device).items()):
        num_params = len(grads) // num_tasks
        likes = [next((g for g in grads[p::num_params] if g.numel()), grads[p]) for p in range(num_params)]
        out = [torch.randn(like.shape, generator=generator(seed)).to(like.dtype).to(device) for like in likes]
        accumulate = number % 2 == 0
        cases[f"{name}{'-accumulate' if accumulate else ''}"] = (out, grads, num_tasks, *rest, accumulate)
    grads = list_grads([(5, 7)], 3, device=device)
    transposed_out = [torch.randn(7, 5, device=device).mT]
    for number in (0, 2):
        rest = variant(number, grads, 3, device)
        cases[f"transposed-out-{number}"] = (transposed_out, grads, 3, *rest, True)
    return cases


def graddrop_errors(*, in_place):
    grads = list_grads([(3, 4), (5,)], 2)
    out = [grad.clone() for grad in grads[:2]]
    seed, uniform = torch.tensor([1, 0]), [torch.ones(3, 4), torch.ones(5)]
    leak = torch.zeros(2, dtype=torch.float64)
    arguments = {
        "neither": ((None, [], None), "expected either seed or uniform, found neither"),
        "both": ((seed, uniform, None), "expected either seed or uniform, found both"),
        "seed-shape": ((seed[:1], [], None), "seed has shape [1], expected [2] (seed, step)"),
        "seed-dtype": ((seed.int(), [], None), "seed has dtype torch.int32, expected torch.int64"),
        "uniform-length": ((None, uniform[:1], None), "len(uniform) is 1, expected 2 = len(grads) / K"),
        "uniform-dtype": (
            (None, [uniform[0].double(), uniform[1]], None),
            "uniform[0] has dtype torch.float64, expected torch.float32",
        ),
        "uniform-shape": (
            (None, [uniform[0].T, uniform[1]], None),
            "uniform[0] has shape [4, 3], expected [3, 4] as in grads[0]",
        ),
        "leak-shape": ((seed, [], leak[:1]), "leak has shape [1], expected [K] = [2]"),
        "leak-dtype": ((seed, [], leak.float()), "leak has dtype torch.float32, expected torch.float64"),
    }
    prefix, suffix = ((out,), (False,)) if in_place else ((), ())
    errors = {
        name: ((*prefix, grads, 2, *rest, False, 1.0, *suffix), message) for name, (rest, message) in arguments.items()
    }
    for name, (rest, message) in list_errors(2, seed, [], None, False, 1.0).items():
        errors[name] = ((*prefix, *rest, *suffix), message)
    errors["num-tasks"] = (
        (*prefix, grads, 0, seed, [], None, False, 1.0, *suffix),
        "num_tasks is 0, expected at least 1",
    )
    if in_place:
        tail = (grads, 2, seed, [], None, False, 1.0, False)
        errors["out-length"] = ((out[:1], *tail), "len(out) is 1, expected 2 = len(grads) / K")
        errors["out-shape"] = (([out[0].T, out[1]], *tail), "out[0] has shape [4, 3], expected [3, 4]")
    return errors


CASES = [
    OpCase(
        "graddrop",
        inputs=graddrop_inputs,
        check=lambda arguments, result: check_result(*arguments, result),
        errors=graddrop_errors(in_place=False),
    ),
    OpCase(
        "graddrop_",
        inputs=graddrop_into_inputs,
        check=lambda arguments, result: check_result(*arguments[1:8], result, arguments[0] if arguments[8] else None),
        errors=graddrop_errors(in_place=True),
        mutates=1,
    ),
]
