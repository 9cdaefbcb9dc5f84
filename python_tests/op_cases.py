"""One row per operator: what the tests and the benchmarks know about it. Adding an operator adds one row to CASES."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

SHAPES = {
    "scalar": [()],
    "empty-parameter": [(0,), (3,)],
    "primes": [(5, 7), (11,), (13, 1)],
    "around-a-block": [(64,), (65, 3), (7,), (259,), (1, 256)],
    "longer-than-a-chunk": [(70001,), (17,)],
    "many-tiny": [(3,)] * 100,
}
TASKS = (1, 2, 3, 5, 8, 33)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def list_grads(shapes, num_tasks, dtype=torch.float32, device="cpu", seed=0):
    """Random task-major gradients."""
    draw = generator(seed)
    return [torch.randn(s, generator=draw, dtype=torch.float64).to(dtype).to(device) for s in shapes * num_tasks]


def absent(grads, num_tasks):
    """Every third tensor missing, and one parameter missing for all tasks."""
    num_params = len(grads) // num_tasks
    return [
        grad.new_empty(0) if index % 3 == 1 or (index % num_params == 0 and num_params > 1) else grad
        for index, grad in enumerate(grads)
    ]


def transposed(grads, num_tasks):
    """Dense, not contiguous, alike for all tasks."""
    return [grad.mT.contiguous().mT if grad.dim() == 2 else grad for grad in grads]


def one_task_transposed(grads, num_tasks):
    """Strides that differ between tasks."""
    num_params = len(grads) // num_tasks
    return transposed(grads[:num_params], 1) + grads[num_params:]


def expanded(grads, num_tasks):
    """Stride 0, as the gradient of a sum has it, for the first task."""
    num_params = len(grads) // num_tasks
    first = [grad.flatten()[:1].sum().expand(grad.shape) if grad.numel() else grad for grad in grads[:num_params]]
    return first + grads[num_params:]


def strided(grads, num_tasks):
    """Every second element of a larger tensor."""
    return [torch.stack([grad, grad + 1], -1)[..., 0] for grad in grads]


def misaligned(grads, num_tasks):
    """Contiguous, but one element past an aligned address."""
    return [torch.cat([grad.new_zeros(1), grad.flatten()])[1:].reshape(grad.shape) for grad in grads]


def offset_by_task(grads, num_tasks):
    """Contiguous, each task's tensors at another alignment."""
    num_params = len(grads) // num_tasks
    pads = [1 + index // num_params for index in range(len(grads))]
    return [torch.cat([g.new_zeros(n), g.flatten()])[n:].reshape(g.shape) for g, n in zip(grads, pads, strict=True)]


LAYOUTS = (absent, transposed, one_task_transposed, expanded, strided, misaligned, offset_by_task)


def stacked(grads, num_tasks):
    """[K, N] in extended precision, absent gradients as zeros: what the oracles compute with."""
    num_params = len(grads) // num_tasks
    columns = []
    for param in range(num_params):
        column = [grad.detach().cpu().double().numpy().reshape(-1) for grad in grads[param::num_params]]
        size = max(values.size for values in column)
        columns.append(np.stack([values if values.size else np.zeros(size) for values in column]))
    return np.concatenate(columns, 1).astype(np.longdouble)


def unit_roundoff(dtype):
    """Half the machine epsilon of the arithmetic used for a dtype: float32 for the half types."""
    return 2.0**-53 if dtype == torch.float64 else 2.0**-24


@dataclass(frozen=True)
class OpCase:
    """One operator's row.

    Attributes:
        op: the operator's name.
        inputs: (seed, device) -> named argument tuples, small ones for every check.
        check: (arguments, result) -> None; asserts the result against an oracle in higher precision.
        errors: name -> (arguments, part of the message).
        mutates: whether the first argument is written.
    """

    op: str
    inputs: Callable
    check: Callable
    errors: dict[str, tuple[tuple, str]] = field(default_factory=dict)
    mutates: bool = False


# --- gram ---------------------------------------------------------------------------------------------------------


def grad_lists(seed, device):
    """name -> (grads, K): the lists that multi-tensor operators are tried on."""
    cases = {}
    for name, shapes in SHAPES.items():
        for num_tasks in TASKS:
            if name in ("longer-than-a-chunk", "many-tiny") and num_tasks not in (2, 5):
                continue
            cases[f"{name}-K{num_tasks}"] = (list_grads(shapes, num_tasks, device=device, seed=seed), num_tasks)
    for dtype in DTYPES:
        for num_tasks in (2, 3, 7):
            grads = list_grads(SHAPES["around-a-block"], num_tasks, dtype, device, seed)
            cases[f"{str(dtype)[6:]}-K{num_tasks}"] = (grads, num_tasks)
            for layout in LAYOUTS:
                cases[f"{str(dtype)[6:]}-{layout.__name__}-K{num_tasks}"] = (layout(grads, num_tasks), num_tasks)
    mixed = [
        list_grads([(5, 7)], 1, dtype, device, seed + task)[0]
        for task in range(3)
        for dtype in (*DTYPES, torch.float32)
    ]
    cases["mixed-dtypes-K3"] = (mixed, 3)
    cases["K64"] = (list_grads([(131,), (40,)], 64, device=device, seed=seed), 64)
    cases["constant-K3"] = ([torch.full((20000,), 0.1 * (k + 1), device=device) for k in range(3)], 3)
    scales = [10.0**power for power in (-15, 0, 15)]
    scaled = [
        grad * scale for scale, grad in zip(scales, list_grads([(999,)], 3, device=device, seed=seed), strict=True)
    ]
    cases["badly-scaled-K3"] = (scaled, 3)
    return cases


def check_gram(arguments, result):
    grads, num_tasks = arguments
    jacobian = stacked(grads, num_tasks)
    norms = np.sqrt((jacobian**2).sum(1))
    dtypes = {grad.dtype for grad in grads if grad.numel()}
    bound = 128 * max((unit_roundoff(dtype) for dtype in dtypes), default=0.0)
    error = np.abs(result.cpu().numpy() - jacobian @ jacobian.T)
    assert result.dtype == torch.float64
    assert (error <= bound * np.outer(norms, norms)).all()
    assert torch.equal(result, result.T)


def list_errors(*tail):
    """Errors that every operator over a gradient list shares; `tail`: its arguments after grads, for K = 2."""
    a, b = torch.ones(3, 4), torch.ones(5)
    return {
        "shape": (
            ([a, b, torch.ones(4, 3), b], *tail),
            "grads[2] (task 1, parameter 0) has shape [4, 3], expected [3, 4]",
        ),
        "dtype": (
            ([a, b, a.double(), b], *tail),
            "has dtype torch.float64, expected torch.float32 as in grads[0] (task 0)",
        ),
        "integers": (
            ([a.long(), b, a.long(), b], *tail),
            "grads[0] (task 0, parameter 0) has dtype torch.int64, expected",
        ),
        "length": (([a, b, a], *tail), "len(grads) is 3, expected a positive multiple of num_tasks = 2"),
    }


# --- combine ------------------------------------------------------------------------------------------------------


def task_weights(num_tasks, device, seed=7):
    weights = torch.randn(num_tasks, dtype=torch.float64, generator=generator(seed))
    weights[num_tasks // 2] = 0.0 if num_tasks > 2 else weights[num_tasks // 2]
    return weights.to(device)


def combine_inputs(seed, device):
    cases = {name: (grads, task_weights(k, device)) for name, (grads, k) in grad_lists(seed, device).items()}
    poisoned = list_grads([(5, 7)], 3, device=device, seed=seed)
    poisoned[1][0, 0] = torch.nan
    cases["weight-zero-is-not-read"] = (poisoned, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64, device=device))
    cases["all-weights-zero"] = (poisoned, torch.zeros(3, dtype=torch.float64, device=device))
    return cases


def check_combined(grads, weights, result, start=None):
    """Each output within the rounding of K + 2 sequential operations of the exact sum (plus `start`)."""
    num_tasks = len(weights)
    num_params = len(grads) // num_tasks
    values = weights.cpu().numpy().astype(np.longdouble)
    assert len(result) == num_params
    for param in range(num_params):
        column = grads[param::num_params]
        present = [k for k in range(num_tasks) if column[k].numel() > 0 and values[k] != 0]
        if all(grad.numel() == 0 for grad in column):
            assert result[param].numel() == 0 or (start is not None and torch.equal(result[param], start[param]))
            continue
        like = next(grad for grad in column if grad.numel() > 0)
        terms = [values[k] * column[k].cpu().double().numpy().astype(np.longdouble) for k in present]
        if start is not None:
            terms.append(start[param].cpu().double().numpy().astype(np.longdouble))
        exact = sum(terms, np.zeros(like.shape, np.longdouble))
        magnitude = sum((np.abs(term) for term in terms), np.zeros(like.shape, np.longdouble))
        bound = (num_tasks + 2) * unit_roundoff(like.dtype) * magnitude
        if like.dtype in (torch.bfloat16, torch.float16):
            bound = (
                bound + torch.finfo(like.dtype).eps / 2 * np.abs(exact) * 1.01 + torch.finfo(like.dtype).smallest_normal
            )
        assert result[param].shape == like.shape
        assert result[param].dtype == like.dtype
        assert (np.abs(result[param].cpu().double().numpy() - exact) <= bound).all()


def combine_into_inputs(seed, device):
    cases = {}
    for name, (grads, weights) in combine_inputs(seed, device).items():
        num_params = len(grads) // len(weights)
        columns = [grads[param::num_params] for param in range(num_params)]
        likes = [next((grad for grad in column if grad.numel()), column[0]) for column in columns]
        for accumulate in (False, True):
            out = [torch.randn(like.shape, generator=generator(seed)).to(like.dtype).to(device) for like in likes]
            cases[f"{name}{'-accumulate' if accumulate else ''}"] = (out, grads, weights, accumulate)
    transposed_out = [torch.randn(7, 5, device=device).mT]
    cases["transposed-out"] = (transposed_out, list_grads([(5, 7)], 3, device=device), task_weights(3, device), True)
    return cases


def combine_errors(*, in_place):
    grads = list_grads([(3, 4), (5,)], 2)
    weights = torch.ones(2, dtype=torch.float64)
    out = [grad.clone() for grad in grads[:2]]
    errors = {
        name: ((out, arguments[0], arguments[1], False) if in_place else arguments, message)
        for name, (arguments, message) in list_errors(weights).items()
    }
    bad_weights = {
        "weights-dtype": (weights.float(), "weights has dtype torch.float32, expected torch.float64"),
        "weights-shape": (weights[None], "weights has shape [1, 2], expected [K]"),
        "no-weights": (weights[:0], "weights has shape [0], expected [K] with K at least 1"),
    }
    for name, (bad, message) in bad_weights.items():
        errors[name] = ((out, grads, bad, False) if in_place else (grads, bad), message)
    if in_place:
        errors["out-length"] = (
            (out[:1], grads, weights, False),
            "len(out) is 1, expected 2 = len(grads) / len(weights)",
        )
        errors["out-shape"] = (([out[0].T, out[1]], grads, weights, False), "out[0] has shape [4, 3], expected [3, 4]")
        errors["out-dtype"] = (([out[0].double(), out[1]], grads, weights, False), "out[0] has dtype torch.float64")
        overlapping = torch.ones(1).expand(3, 4)
        errors["out-strides"] = (
            ([overlapping, out[1]], grads, weights, False),
            "out[0] has strides [0, 0], expected a dense",
        )
    return errors


# --- K x K operators ----------------------------------------------------------------------------------------------


def random_gram(num_tasks, rank, seed, device, scale=1.0):
    jacobian = torch.randn(num_tasks, rank, dtype=torch.float64, generator=generator(seed)) * scale
    gram = jacobian @ jacobian.T
    return ((gram + gram.T) / 2).to(device)


def grams(seed, device):
    cases = {f"K{k}": random_gram(k, 2 * k + 1, seed + k, device) for k in (1, 2, 3, 5, 8, 20, 33, 64)}
    cases["conflict"] = torch.tensor([[18.0, -22.0], [-22.0, 38.0]], dtype=torch.float64, device=device)
    cases["rank-deficient"] = random_gram(6, 2, seed, device)
    cases["duplicates"] = random_gram(2, 5, seed, device).repeat_interleave(2, 0).repeat_interleave(2, 1)
    cases["zero"] = torch.zeros(3, 3, dtype=torch.float64, device=device)
    with_zero_task = random_gram(4, 9, seed, device)
    with_zero_task[2], with_zero_task[:, 2] = 0.0, 0.0
    cases["zero-task"] = with_zero_task
    cases["tiny"] = random_gram(4, 3, seed, device, 1e-30)
    cases["huge"] = random_gram(4, 3, seed, device, 1e30)
    return cases


def projection_order(num_tasks, seed, device):
    draw = generator(seed)
    rows = [[j for j in torch.randperm(num_tasks, generator=draw).tolist() if j != i] for i in range(num_tasks)]
    return torch.tensor(rows, dtype=torch.int64, device=device).reshape(num_tasks, num_tasks - 1)


def pcgrad_inputs(seed, device):
    cases = {name: (gram, projection_order(len(gram), seed, device)) for name, gram in grams(seed, device).items()}
    cases["order-out-of-range"] = (
        random_gram(3, 2, seed, device),
        torch.tensor([[0, 9], [-4, 2], [1, 0]], device=device),
    )
    return cases


def check_pcgrad(arguments, result):
    gram, order = (argument.cpu().numpy() for argument in arguments)
    num_tasks = len(gram)
    expected = np.zeros(num_tasks)
    for i in range(num_tasks):
        row = np.eye(num_tasks)[i]
        for j in order[i]:
            if 0 <= j < num_tasks and j != i and gram[j, j] > 0:
                row[j] -= min(0.0, gram[j] @ row) / gram[j, j]
        expected += row
    np.testing.assert_allclose(result.cpu().numpy(), expected, rtol=1e-9, atol=1e-9)


def min_norm_inputs(seed, device):
    cases = {name: (gram,) for name, gram in grams(seed, device).items()}
    cases["batch"] = (torch.stack([random_gram(4, 6, seed + i, device) for i in range(6)]).reshape(2, 3, 4, 4),)
    cases["empty-batch"] = (torch.zeros(0, 3, 3, dtype=torch.float64, device=device),)
    broken = random_gram(3, 5, seed, device)
    broken[0, 1] = torch.nan
    cases["non-finite"] = (broken,)
    return cases


def check_min_norm(arguments, result):
    """Feasible, and optimal by the duality gap, recomputed here in extended precision."""
    weights, certificate, status = (value.cpu().numpy() for value in result)
    gram = arguments[0].cpu().numpy()
    num_tasks = gram.shape[-1]
    assert weights.shape == gram.shape[:-1]
    assert certificate.shape == status.shape == gram.shape[:-2]
    rows = zip(gram.reshape(-1, num_tasks, num_tasks), weights.reshape(-1, num_tasks), strict=True)
    for (problem, row), gap, outcome in zip(rows, certificate.flat, status.flat, strict=True):
        if not np.isfinite(problem).all():
            assert outcome == 2
            assert gap == np.inf
            assert (row == 0).all()
            continue
        assert outcome == 0
        assert gap <= 1e-8
        present = np.diag(problem) > 0
        assert (row >= 0).all()
        assert (row[~present] == 0).all()
        if present.any():
            assert abs(row.sum() - 1) <= 1e-12
            products = problem.astype(np.longdouble) @ row
            value = row @ products
            assert value - products[present].min() <= max(1e-8 * value, 1e-14 * np.trace(problem))


SQUARE = torch.ones(2, 2, dtype=torch.float64)
GRAM_ERRORS = {
    "gram-shape": (SQUARE[:1], "gram has shape [1, 2], expected"),
    "gram-dtype": (SQUARE.float(), "gram has dtype torch.float32, expected torch.float64"),
    "no-tasks": (SQUARE[:0, :0], "gram has shape [0, 0], expected"),
}
ORDER = torch.tensor([[1], [0]])

CASES = {
    case.op: case
    for case in (
        OpCase(
            "gram",
            inputs=grad_lists,
            check=check_gram,
            errors={**list_errors(2), "num-tasks": (([torch.ones(3)], 0), "num_tasks is 0, expected at least 1")},
        ),
        OpCase(
            "combine",
            inputs=combine_inputs,
            check=lambda arguments, result: check_combined(*arguments, result),
            errors=combine_errors(in_place=False),
        ),
        OpCase(
            "combine_",
            inputs=combine_into_inputs,
            check=lambda arguments, result: check_combined(
                *arguments[1:3], result, arguments[0] if arguments[3] else None
            ),
            errors=combine_errors(in_place=True),
            mutates=True,
        ),
        OpCase(
            "pcgrad",
            inputs=pcgrad_inputs,
            check=check_pcgrad,
            errors={
                **{name: ((bad, ORDER), message) for name, (bad, message) in GRAM_ERRORS.items()},
                "batch": ((SQUARE[None], ORDER), "gram has shape [1, 2, 2], expected [K, K]"),
                "order-shape": ((SQUARE, ORDER.T), "order has shape [1, 2], expected [K, K - 1] = [2, 1]"),
                "order-dtype": ((SQUARE, ORDER.int()), "order has dtype torch.int32, expected torch.int64"),
            },
        ),
        OpCase(
            "min_norm",
            inputs=min_norm_inputs,
            check=check_min_norm,
            errors={name: ((bad,), message) for name, (bad, message) in GRAM_ERRORS.items()},
        ),
    )
}
