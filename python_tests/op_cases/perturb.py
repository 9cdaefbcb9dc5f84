"""perturb's and perturb_'s rows."""

import numpy as np
import torch

from op_cases.common import OpCase, generator, grad_lists, list_grads

RADIUS = 0.37


def pairs(seed, device):
    """name -> two lists that stand side by side, the first without holes where the second has none."""
    cases = {}
    for name, (grads, num_tasks) in grad_lists(seed, device).items():
        if num_tasks == 2:
            second = grads[len(grads) // 2 :]
            first = [a if a.numel() else torch.randn_like(b) for a, b in zip(grads, second, strict=False)]
            cases[name] = (first, second)
    for name, scale in (("tiny", 1e-30), ("huge", 1e30), ("subnormal", 1e-41)):
        first, second = (list_grads([(999,), (3,)], 1, torch.float64, device, seed + side) for side in (0, 1))
        cases[name] = ([tensor.float() for tensor in first], [(tensor * scale).float() for tensor in second])
    mixed = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    cases["mixed-dtypes"] = tuple(
        [list_grads([(5, 7)], 1, dtype, device, seed + side)[0] for dtype in mixed] for side in (0, 1)
    )
    return cases


def square(tensors):
    arrays = [tensor.cpu().double().numpy().astype(np.longdouble) for tensor in tensors]
    return sum(((array**2).sum() for array in arrays), np.longdouble(0))


def check_eps(params, direction, radius, relative, eps):
    assert eps.shape == ()
    assert eps.dtype == torch.float64
    norm = np.sqrt(square(direction))
    expected = 0 if norm == 0 else radius * (np.sqrt(square(params)) if relative else 1) / norm
    if np.isfinite(norm):
        np.testing.assert_allclose(eps.item(), float(expected), rtol=1e-13)
    else:
        assert eps.isnan()


def check_rounded(found, exact):
    """Within 2 ulp of `exact`, or of zero by less than the smallest number of the dtype."""
    info = torch.finfo(found.dtype)
    values = found.cpu().double().numpy()
    nan = np.isnan(exact)
    assert (np.isnan(values) == nan).all()
    bound = np.maximum(info.eps * np.abs(exact[~nan]), info.smallest_normal * info.eps)
    assert (np.abs(values[~nan] - exact[~nan]) <= bound).all()


def check_sides(arguments, result):
    params, direction, radius, relative = arguments
    plus, minus, eps = result
    check_eps(params, direction, radius, relative, eps)
    for param, along, up, down in zip(params, direction, plus, minus, strict=True):
        assert up.shape == down.shape == param.shape
        assert up.dtype == down.dtype == param.dtype
        start = param.cpu().double().numpy().astype(np.longdouble)
        moves = along.numel() > 0
        step = np.longdouble(eps.item()) * along.cpu().double().numpy() if moves else np.zeros_like(start)
        for side, sign in ((up, 1), (down, -1)):
            if moves and eps != 0:
                # In float64 the result may cancel: two roundings of the terms.
                check_moved(side, start, sign * step)
            else:
                assert torch.equal(side, param)


def check_moved(found, start, step):
    if found.dtype == torch.float64:
        error = np.abs(found.cpu().numpy() - (start + step))
        assert (error <= 2.0**-52 * (np.abs(start) + np.abs(step))).all()
    else:
        check_rounded(found, start + step)


def perturb_inputs(seed, device):
    cases = {
        f"{name}{'-relative' if number % 2 else ''}": (*lists, RADIUS, number % 2 == 1)
        for number, (name, lists) in enumerate(pairs(seed, device).items())
    }
    params, direction = cases["primes-K2"][:2] if "primes-K2" in cases else cases["primes-K2-relative"][:2]
    zero = [torch.zeros_like(tensor) for tensor in direction]
    cases["zero-direction"] = (params, zero, RADIUS, True)
    cases["absent-direction"] = (params, [tensor.new_empty(0) for tensor in direction], RADIUS, False)
    cases["zero-radius"] = (params, direction, 0.0, False)
    cases["zero-params-relative"] = (zero, direction, RADIUS, True)
    for value in (torch.inf, torch.nan):
        broken = [tensor.clone() for tensor in direction]
        broken[0].view(-1)[3] = value
        cases[f"{value}-direction"] = (params, broken, RADIUS, False)
    return cases


def outputs(seed, likes, count):
    """`count` lists of existing tensors."""
    return [
        [torch.randn(like.shape, generator=generator(seed + n)).to(like.dtype).to(like.device) for like in likes]
        for n in range(count)
    ]


def perturb_into_inputs(seed, device):
    cases = {
        name: (*outputs(seed, arguments[0], 2), *arguments) for name, arguments in perturb_inputs(seed, device).items()
    }
    params, direction = ([torch.randn(5, 7, device=device)] for _ in range(2))
    transposed = [[torch.randn(7, 5, device=device).mT] for _ in range(2)]
    cases["transposed-out"] = (*transposed, params, direction, RADIUS, False)
    return cases


def pair_errors(names, *tail, writes=()):
    """What all operators over two lists refuse; `writes` names their outputs."""
    a, b = torch.ones(3, 4), torch.ones(5)
    first, second = names
    out = [[a.clone(), b.clone()] for _ in writes]
    lists = {
        "length": (([a, b], [a]), f"len({second}) is 1, expected 2 = len({first})"),
        "shape": (([a, b], [a.T, b]), f"{second}[0] has shape [4, 3], expected [3, 4] as {first}[0]"),
        "dtype": (
            ([a, b], [a, b.double()]),
            f"{second}[1] has dtype torch.float64, expected torch.float32 as {first}[1]",
        ),
        "integers": (
            ([a.long(), b], [a.long(), b]),
            f"{first}[0] has dtype torch.int64, expected torch.float64, torch",
        ),
    }
    errors = {name: ((*out, *pair, *tail), message) for name, (pair, message) in lists.items()}
    for index, name in enumerate(writes):
        bad = {
            "length": ([a], f"len({name}) is 1, expected 2 = len({first})"),
            "shape": ([a.T, b], f"{name}[0] has shape [4, 3], expected [3, 4] as {first}[0]"),
            "dtype": ([a, b.half()], f"{name}[1] has dtype torch.float16, expected torch.float32 as {first}[1]"),
            "strides": ([torch.ones(1).expand(3, 4), b], f"{name}[0] has strides [0, 0], expected a dense tensor"),
        }
        for kind, (tensors, message) in bad.items():
            errors[f"{name}-{kind}"] = ((*out[:index], tensors, *out[index + 1 :], [a, b], [a, b], *tail), message)
    return errors


def perturb_errors(*, in_place):
    a, b = torch.ones(3, 4), torch.ones(5)
    out = ([a.clone(), b.clone()], [a.clone(), b.clone()]) if in_place else ()
    errors = pair_errors(("params", "direction"), RADIUS, False, writes=("plus", "minus") if in_place else ())
    errors["absent-params"] = (
        ((*([[a.clone()], [a.clone()]] if in_place else ()), [a.new_empty(0)], [a], RADIUS, False)),
        "params[0] has shape [0], expected [3, 4] as direction[0]",
    )
    if in_place:
        other = [torch.ones(4, 3).T, b]
        errors["other-layout"] = (
            (out[0], other, [a, b], [a, b], RADIUS, False),
            "minus[0] has strides [1, 3], expected [4, 1] as plus[0]",
        )
    return errors


CASES = [
    OpCase("perturb", inputs=perturb_inputs, check=check_sides, errors=perturb_errors(in_place=False)),
    OpCase(
        "perturb_",
        inputs=perturb_into_inputs,
        check=lambda arguments, result: check_sides(arguments[2:], result),
        errors=perturb_errors(in_place=True),
        mutates=2,
    ),
]
