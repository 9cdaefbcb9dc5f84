"""pcgrad's row."""

import numpy as np
import torch

from op_cases.common import GRAM_ERRORS, SQUARE, OpCase, generator, grams, random_gram


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


ORDER = torch.tensor([[1], [0]])
CASES = [
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
    )
]
