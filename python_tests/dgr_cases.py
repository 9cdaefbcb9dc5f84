"""Heads and losses on which DGR's ways to differentiate are compared; the plot of bench draws the same."""

import torch
from torch import nn
from torch.nn import functional

from mtl_ext.data.losses import masked_l1, normals_cosine, pixel_cross_entropy
from mtl_ext.models.deeplab import deeplab_head

HEADS = ("linear", "mlp", "conv", "deeplab")
LOSSES = ("cross_entropy", "l1", "cosine")


def make_head(name):
    """A head for features [B, 4, 6, 6] with three outputs."""
    if name == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    if name == "conv":
        return nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 3, 1))
    return deeplab_head(4, 3, stride=1, width=8, rates=(1, 2), dropout=0.5)


def vector_cosine(output, target):
    """1 - cos, mean over the batch."""
    return 1 - functional.cosine_similarity(output, target).mean()


def head_case(name, loss, dtype, seed=1):
    """A head, its loss, features that require grad, and a target."""
    torch.manual_seed(seed)
    head = make_head(name).to(dtype)
    side = {"linear": (), "mlp": (), "conv": (2, 2), "deeplab": (6, 6)}[name]
    z = torch.randn(4, 4, 6, 6, dtype=dtype, requires_grad=True)
    if loss == "cross_entropy":
        return head, pixel_cross_entropy if side else functional.cross_entropy, z, torch.randint(3, (4, *side))
    dense = {"l1": masked_l1, "cosine": normals_cosine}
    flat = {"l1": functional.l1_loss, "cosine": vector_cosine}
    target = functional.normalize(torch.randn(4, 3, *side, dtype=dtype), dim=1)
    return head, (dense if side else flat)[loss], z, target
