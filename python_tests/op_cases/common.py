"""What the operators' rows have in common: the card, random gradients and Gram matrices, shared error rows."""

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
        mutates: how many arguments, the first ones, are written.
        differentiable_solver: for a solver with a derivative, the argument tuples after `gram` to check it with.
    """

    op: str
    inputs: Callable
    check: Callable
    errors: dict[str, tuple[tuple, str]] = field(default_factory=dict)
    mutates: int = 0
    differentiable_solver: tuple[tuple, ...] = ()


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


SQUARE = torch.ones(2, 2, dtype=torch.float64)
GRAM_ERRORS = {
    "gram-shape": (SQUARE[:1], "gram has shape [1, 2], expected"),
    "gram-dtype": (SQUARE.float(), "gram has dtype torch.float32, expected torch.float64"),
    "no-tasks": (SQUARE[:0, :0], "gram has shape [0, 0], expected"),
}
