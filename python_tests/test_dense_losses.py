"""Dense losses: by hand, against the published formulas, and where nothing has a label."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from mtl_ext.data.losses import (
    balanced_bce,
    masked_l1,
    normals_cosine,
    normals_l1,
    pixel_cross_entropy,
    soft_cross_entropy,
    token_cross_entropy,
    valid_pixels,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cross_entropy_is_the_mean_over_labelled_pixels():
    output = random(2, 4, 3, 5)
    target = torch.randint(-1, 4, (2, 3, 5), generator=torch.Generator().manual_seed(1))
    expected = functional.cross_entropy(output, target, ignore_index=-1)
    assert pixel_cross_entropy(output, target).item() == pytest.approx(expected.item())
    marked = torch.where(target == -1, 255, target)
    assert pixel_cross_entropy(output, marked, ignore=255).item() == pytest.approx(expected.item())


def test_l1_sums_over_channels_and_divides_by_valid_pixels():
    output = torch.zeros(1, 3, 1, 3, requires_grad=True)
    target = torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.0, 0.0], [0.0, 0.0, -0.8]]).T.reshape(1, 3, 1, 3)
    # Pixels (0.6, 0, 0.8) -> 1.4; (0, 0, 0): no label; (0, 0, -0.8) -> 0.8.
    assert masked_l1(output, target).item() == pytest.approx((1.4 + 0.8) / 2)
    assert masked_l1(output, target, per_channel=True).item() == pytest.approx((1.4 + 0.8) / 6)


def test_the_mark_may_be_another_value():
    output, target = torch.zeros(1, 1, 1, 4), torch.tensor([[[[-1.0, 0.0, 2.0, 4.0]]]])
    assert masked_l1(output, target, invalid=-1.0).item() == 2.0
    assert masked_l1(output, target, invalid=0.0).item() == pytest.approx(7 / 3)
    normals = torch.full((1, 3, 1, 2), 255.0)
    normals[..., 0] = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1)
    output = torch.tensor([0.0, 5.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert normals_l1(output, normals, invalid=255.0).item() == pytest.approx(2.0)
    assert normals_l1(output, normals, invalid=255.0, per_channel=True).item() == pytest.approx(2 / 3)


def test_normals_that_cancel_are_masked_as_published_or_kept_by_norm():
    target = torch.tensor([2**-0.5, -(2**-0.5), 0.0]).reshape(1, 3, 1, 1)
    assert not valid_pixels(target).item()
    assert valid_pixels(target, by_norm=True).item()
    assert not valid_pixels(torch.zeros(1, 3, 1, 1), by_norm=True).item()


def test_normals_by_cosine_is_one_minus_the_mean_inner_product():
    output, target = random(2, 3, 4, 4), functional.normalize(random(2, 3, 4, 4, seed=1), dim=1)
    target[:, :, 0] = 0
    unit = (output / output.norm(dim=1, keepdim=True)).numpy()
    valid = target.numpy().sum(1) != 0
    expected = 1 - (unit * target.numpy()).sum(1)[valid].sum() / valid.sum()
    assert normals_cosine(output, target).item() == pytest.approx(expected)
    assert normals_cosine(3 * target[..., 1:, :], target[..., 1:, :]).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("positive", [0.95, None])
def test_balanced_bce_weighs_the_two_classes(positive):
    output = random(2, 1, 5, 6)
    target = (random(2, 1, 5, 6, seed=1) > 0.8).double()
    target[0, 0, 0] = 255
    logits, labels = (values.numpy()[target.numpy() != 255] for values in (output, target))
    probability = 1 / (1 + np.exp(-logits))
    weight = 1 - labels.mean() if positive is None else positive
    entropy = -weight * labels * np.log(probability) - (1 - weight) * (1 - labels) * np.log(1 - probability)
    assert balanced_bce(output, target, positive).item() == pytest.approx(entropy.mean(), rel=1e-6)


def test_soft_labels_are_compared_by_cross_entropy():
    output, target = random(3, 5), functional.softmax(random(3, 5, seed=1), dim=1)
    assert soft_cross_entropy(output, target).item() == pytest.approx(functional.cross_entropy(output, target).item())


def test_tokens_are_compared_where_they_have_scores():
    output = random(1, 6, 2, 2)
    target = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    target[0, :2, 0, 1], target[0, 2:, 0, 1] = torch.tensor([5.0, 2.0]), torch.tensor([0.7, 0.2])
    logs = output.log_softmax(1)[0, :, 0, 1]
    assert token_cross_entropy(output, target).item() == pytest.approx(-(0.7 * logs[5] + 0.2 * logs[2]).item())
    constant = random(1, 6, 1, 1).expand(1, 6, 8, 8)
    logs = constant.log_softmax(1)[0, :, 0, 0]
    assert token_cross_entropy(constant, target).item() == pytest.approx(-(0.7 * logs[5] + 0.2 * logs[2]).item())


NOTHING_VALID = {
    "cross entropy": (pixel_cross_entropy, (2, 3, 4, 4), torch.full((2, 4, 4), -1)),
    "depth": (masked_l1, (2, 1, 4, 4), torch.zeros(2, 1, 4, 4)),
    "disparity": (partial(masked_l1, invalid=-1.0), (2, 1, 4, 4), torch.full((2, 1, 4, 4), -1.0)),
    "normals, L1": (normals_l1, (2, 3, 4, 4), torch.zeros(2, 3, 4, 4)),
    "normals, cosine": (normals_cosine, (2, 3, 4, 4), torch.zeros(2, 3, 4, 4)),
    "edges": (balanced_bce, (2, 1, 4, 4), torch.full((2, 1, 4, 4), 255.0)),
    "saliency": (partial(balanced_bce, positive=None), (2, 1, 4, 4), torch.full((2, 1, 4, 4), 255.0)),
    "tokens": (token_cross_entropy, (2, 7, 4, 4), torch.zeros(2, 10, 2, 2)),
}


@pytest.mark.parametrize("name", NOTHING_VALID)
def test_where_nothing_has_a_label_loss_and_gradient_are_zero(name):
    loss, shape, target = NOTHING_VALID[name]
    output = random(*shape).requires_grad_()
    value = loss(output, target)
    value.backward()
    assert value.item() == 0
    assert torch.equal(output.grad, torch.zeros_like(output))
