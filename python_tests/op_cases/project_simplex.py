"""project_simplex's row."""

import numpy as np
import torch

from op_cases.common import SQUARE, OpCase, generator


def project_simplex_inputs(seed, device):
    cases = {}
    for num_tasks in (1, 2, 3, 5, 8, 33, 64, 257):
        draw = torch.randn(6, num_tasks, dtype=torch.float64, generator=generator(seed + num_tasks))
        for scale in (1e-300, 1e-3, 1.0, 1e3, 1e300):
            cases[f"K{num_tasks}-times-{scale:g}"] = (draw * scale,)
        cases[f"K{num_tasks}-shifted"] = (draw * 1e-3 + 1e6,)
        cases[f"K{num_tasks}-ties"] = (draw.round() / 4,)
        cases[f"K{num_tasks}-equal"] = (torch.full_like(draw, -7.25),)
    cases["K3"] = (torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),)
    cases["far-apart"] = (torch.tensor([[1.7e308, -1.7e308, 0.0], [1e300, 1e300, 1e-300]], dtype=torch.float64),)
    cases["batch"] = (torch.randn(2, 3, 4, dtype=torch.float64, generator=generator(seed)),)
    cases["not-contiguous"] = (torch.randn(5, 4, dtype=torch.float64, generator=generator(seed)).T,)
    cases["empty-batch"] = (torch.zeros(0, 3, dtype=torch.float64),)
    broken = torch.zeros(3, 2, dtype=torch.float64)
    broken[0, 1], broken[2, 0] = torch.nan, -torch.inf
    cases["non-finite"] = (broken,)
    return {name: (values.to(device),) for name, (values,) in cases.items()}


def projected(values):
    """By sorting, in extended precision."""
    shifted = values.astype(np.longdouble) - values.max()
    ordered = np.sort(shifted)[::-1]
    thresholds = (np.cumsum(ordered) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(shifted - thresholds[ordered > thresholds][-1], 0)


def check_project_simplex(arguments, result):
    weights, certificate, status = (value.cpu().numpy() for value in result)
    values = arguments[0].cpu().numpy()
    assert weights.shape == values.shape
    assert certificate.shape == status.shape == values.shape[:-1]
    for index in np.ndindex(values.shape[:-1]):
        if not np.isfinite(values[index]).all():
            assert status[index] == 2
            assert certificate[index] == np.inf
            assert (weights[index] == 0).all()
            continue
        assert status[index] == 0
        assert certificate[index] <= 1e-14 * len(values[index])
        np.testing.assert_allclose(weights[index], projected(values[index]), rtol=0, atol=1e-15 * len(values[index]))


CASES = [
    OpCase(
        "project_simplex",
        inputs=project_simplex_inputs,
        check=check_project_simplex,
        errors={
            "shape": ((SQUARE[0, 0],), "values has shape [], expected [..., K] with K at least 1"),
            "no-tasks": ((SQUARE[:, :0],), "values has shape [2, 0], expected [..., K] with K at least 1"),
            "dtype": ((SQUARE.float(),), "values has dtype torch.float32, expected torch.float64"),
        },
    )
]
