"""graddrop_features' row."""

import numpy as np
import torch

from op_cases.common import DTYPES, LAYOUTS, OpCase, generator, list_errors, list_grads
from op_cases.graddrop import check_column, drawn, variant

SHAPES = {
    "one-sample": [(1, 9)],
    "no-positions": [(3,), (5,)],
    "empty-batch": [(0, 4), (2, 3)],
    "primes": [(5, 7, 11), (13, 3)],
    "full-slices": [(16, 64), (17, 130)],
    "more-than-a-strip": [(9, 1031), (2, 40, 31)],
    "wide": [(3, 40001)],
}


def channels_last(grads, num_tasks):
    """Not contiguous, with the batch outermost."""
    return [grad.transpose(1, -1).contiguous().transpose(1, -1) if grad.dim() > 2 else grad for grad in grads]


def signed_batch_sum(feature, wide):
    """From gradients [B, ...] to their sum with the features' signs, in the order that the operator promises."""
    sign = np.sign(feature.cpu().double().numpy()).astype(wide)

    def marginal(value):
        total = np.zeros(value.shape[1:], wide)
        for first in range(8):
            part = np.zeros_like(total)
            for term in (sign * value)[first::8]:
                part = part + term
            total = total + part
        return total

    return marginal


def check_features(arguments, result):
    grads, num_tasks, features, seed, uniform, leak, sigmoid, kappa = arguments
    leaks = [0.0] * num_tasks if leak is None else leak.tolist()
    assert len(result) == len(features)
    for param, (found, feature) in enumerate(zip(result, features, strict=True)):
        column = grads[param :: len(result)]
        if all(grad.numel() == 0 for grad in column):
            assert found.numel() == 0
            continue
        wide = np.float64 if found.dtype == torch.float64 else np.float32
        assert found.shape == feature.shape
        assert found.dtype == feature.dtype
        draw = drawn(param, seed, uniform, found[0])
        check_column(column, draw, leaks, sigmoid, kappa, found, None, signed_batch_sum(feature, wide))


def features_like(grads, num_tasks, seed):
    """Activations after a ReLU or not, in layouts of their own."""
    features = []
    num_params = len(grads) // num_tasks
    for param in range(num_params):
        like = next((g for g in grads[param::num_params] if g.numel()), grads[param])
        value = torch.randn(like.shape, generator=generator(seed + param)).to(like.dtype).to(like.device)
        value = value.relu() if param % 2 else value
        features.append(value.mT.contiguous().mT if param % 3 == 2 and value.dim() > 1 else value)
    return features


def feature_inputs(seed, device):
    lists = {}
    for name, shapes in SHAPES.items():
        for num_tasks in (1, 2, 3, 5, 9):
            lists[f"{name}-K{num_tasks}"] = list_grads(shapes, num_tasks, device=device, seed=seed), num_tasks
    for dtype in DTYPES:
        for layout in (*LAYOUTS, channels_last):
            grads = list_grads([(6, 5, 7), (11, 64), (9, 300)], 3, dtype, device, seed)
            lists[f"{str(dtype)[6:]}-{layout.__name__}-K3"] = layout(grads, 3), 3
    mixed = [list_grads([(5, 7)], 1, d, device, seed + k)[0] for k in range(3) for d in DTYPES]
    lists["mixed-dtypes-K3"] = mixed, 3
    lists["K33"] = list_grads([(10, 131)], 33, device=device, seed=seed), 33
    cases = {}
    for number, (name, (grads, num_tasks)) in enumerate(lists.items()):
        draw_seed, uniform, *rest = variant(seed + number, grads, num_tasks, device)
        uniform = [u[0] if u.numel() else u for u in uniform]
        cases[name] = (grads, num_tasks, features_like(grads, num_tasks, seed), draw_seed, uniform, *rest)
    return cases


def feature_errors():
    grads = list_grads([(3, 4), (5, 2)], 2)
    features = [grad.clone() for grad in grads[:2]]
    seed, uniform = torch.tensor([1, 0]), [torch.ones(4), torch.ones(2)]
    leak = torch.zeros(2, dtype=torch.float64)
    rows = {
        "features-length": ((features[:1], seed, [], None), "len(features) is 1, expected 2 = len(grads) / K"),
        "features-shape": (
            ([features[0].T, features[1]], seed, [], None),
            "features[0] has shape [4, 3], expected [3, 4] as in grads[0]",
        ),
        "features-dtype": (
            ([features[0].double(), features[1]], seed, [], None),
            "features[0] has dtype torch.float64",
        ),
        "neither": ((features, None, [], None), "expected either seed or uniform, found neither"),
        "both": ((features, seed, uniform, None), "expected either seed or uniform, found both"),
        "uniform-shape": (
            (features, None, [grads[0], uniform[1]], None),
            "uniform[0] has shape [3, 4], expected [4] as a sample of grads[0]",
        ),
        "leak-shape": ((features, seed, [], leak[:1]), "leak has shape [1], expected [K] = [2]"),
    }
    errors = {name: ((grads, 2, *rest, False, 1.0), message) for name, (rest, message) in rows.items()}
    errors |= list_errors(2, features, seed, [], None, False, 1.0)
    scalars = [torch.ones(())] * 2
    errors["no-batch"] = (
        (scalars, 2, scalars[:1], seed, [], None, False, 1.0),
        "features[0] has shape [], expected [B, ...] with the batch in front",
    )
    return errors


CASES = [OpCase("graddrop_features", inputs=feature_inputs, check=check_features, errors=feature_errors())]
