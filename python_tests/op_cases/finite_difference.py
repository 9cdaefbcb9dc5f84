"""finite_difference's and finite_difference_'s rows."""

import numpy as np
import torch

from op_cases.common import OpCase
from op_cases.perturb import check_rounded, outputs, pair_errors, pairs


def scalar(value, device):
    return torch.tensor(value, dtype=torch.float64, device=device)


def check_difference(plus, minus, eps, result, start=None):
    step = np.longdouble(eps.item())
    for param, (up, down, found) in enumerate(zip(plus, minus, result, strict=True)):
        like = up if up.numel() > 0 else down
        before = None if start is None else start[param]
        if like.numel() == 0:
            assert found.numel() == 0 or (before is not None and torch.equal(found, before))
            continue
        assert found.shape == like.shape
        assert found.dtype == like.dtype
        zero = np.zeros(like.shape, np.longdouble)
        first, second, third = (
            zero if tensor is None or tensor.numel() == 0 else tensor.cpu().double().numpy().astype(np.longdouble)
            for tensor in (up, down, before)
        )
        quotient = zero if step == 0 else (first - second) / (2 * step)
        if found.dtype == torch.float64:
            error = np.abs(found.cpu().numpy() - (third + quotient))
            assert (error <= 2.0**-52 * (np.abs(third) + 2 * np.abs(quotient))).all()
        else:
            check_rounded(found, np.clip(third + quotient, -np.inf, np.inf))


def difference_inputs(seed, device):
    sizes = (1e-3, -0.25, 3e4)
    cases = {
        name: (plus, minus, scalar(sizes[number % 3], device))
        for number, (name, (plus, minus)) in enumerate(pairs(seed, device).items())
    }
    plus, minus, _ = cases["primes-K2"]
    cases["tiny"] = (*cases["tiny"][:2], scalar(1e-12, device))
    cases["huge"] = (*cases["huge"][:2], scalar(1e25, device))
    cases["subnormal"] = (cases["subnormal"][1], [-tensor for tensor in cases["subnormal"][1]], scalar(1e-40, device))
    cases["absent-plus"] = ([plus[0].new_empty(0), *plus[1:]], minus, scalar(0.1, device))
    poisoned = [torch.full_like(tensor, torch.nan) for tensor in plus]
    cases["zero-eps"] = (poisoned, minus, scalar(0.0, device))
    cases["nan-eps"] = (plus, minus, scalar(torch.nan, device))
    cases["nan-gradient"] = (poisoned[:1] + plus[1:], minus, scalar(0.1, device))
    return cases


def difference_into_inputs(seed, device):
    cases = {}
    for number, (name, (plus, minus, eps)) in enumerate(difference_inputs(seed, device).items()):
        likes = [up if up.numel() else down for up, down in zip(plus, minus, strict=True)]
        accumulate = number % 2 == 0
        cases[f"{name}{'-accumulate' if accumulate else ''}"] = (*outputs(seed, likes, 1), plus, minus, eps, accumulate)
    for accumulate in (False, True):
        transposed = [torch.randn(7, 5, device=device).mT]
        plus, minus = ([torch.randn(5, 7, device=device)] for _ in range(2))
        cases[f"transposed-out{accumulate}"] = (transposed, plus, minus, scalar(0.1, device), accumulate)
    return cases


def difference_errors(*, in_place):
    a = torch.ones(3, 4)
    writes, tail = (("out",), (False,)) if in_place else ((), ())
    out = [[a.clone()]] if in_place else []
    errors = pair_errors(("plus", "minus"), scalar(0.1, "cpu"), *tail, writes=writes)
    for name, (eps, message) in {
        "eps-shape": (scalar([0.1], "cpu"), "eps has shape [1], expected []"),
        "eps-dtype": (torch.tensor(0.1), "eps has dtype torch.float32, expected torch.float64"),
    }.items():
        errors[name] = ((*out, [a], [a], eps, *tail), message)
    return errors


CASES = [
    OpCase(
        "finite_difference",
        inputs=difference_inputs,
        check=lambda arguments, result: check_difference(*arguments, result),
        errors=difference_errors(in_place=False),
    ),
    OpCase(
        "finite_difference_",
        inputs=difference_into_inputs,
        check=lambda arguments, result: check_difference(
            *arguments[1:4], result, arguments[0] if arguments[4] else None
        ),
        errors=difference_errors(in_place=True),
        mutates=1,
    ),
]
