"""Noisy labels for rendered scenes, by a small network that has learned on scenes of another look."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtl_ext.data.extra_tasks import PSEUDO_IGNORE
from mtl_ext.data.frozen_labels import FrozenNetworks
from mtl_ext.data.scenes.scene import CLASSES

# Of what the network learns on: no texture, cameras that roll and pitch, few objects.
FOREIGN_LOOK = {"objects": 6, "piles": 1, "texture": 0.1, "tilt": 20.0}
FOREIGN_SIZE = 256
# Added to the seed of the scenes: the network has never seen a scene of theirs.
FOREIGN_SEED = 10**6
STEPS, BATCH, RATE = 300, 8, 5e-3
# Weight of things in its loss: they cover a fifth of the pixels.
THINGS = 3.0
STRIDE, WIDTH = 4, 24
# Pixels per cell of the token labels.
CELL = 16
# Walls, floors and ceilings: as in COCO, only things are segments.
STUFF = len([name for name in CLASSES if name in ("wall", "floor", "ceiling")])


def train_foreign_network(inputs: Tensor, semantics: Tensor) -> nn.Module:
    """A small segmentation network [B, 3, H, W] -> [B, 7, H, W], trained for a few seconds.

    Args:
        inputs: scenes [M, 3, H, W] float32, the sides multiples of 4.
        semantics: their classes [M, H, W] int64.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.PixelUnshuffle(STRIDE),
            nn.Conv2d(3 * STRIDE**2, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.BatchNorm2d(WIDTH),
            nn.Conv2d(WIDTH, len(CLASSES) * STRIDE**2, 1),
            nn.PixelShuffle(STRIDE),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        weight = torch.tensor([1.0] * STUFF + [THINGS] * (len(CLASSES) - STUFF))
        for _ in range(STEPS):
            index = torch.randint(len(inputs), (BATCH,))
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(inputs[index]), semantics[index], weight)
            torch.autograd.backward(loss)
            optimizer.step()
    return network.eval().requires_grad_(False)


def foreign_labels(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """The network's pseudo labels of scenes [M, 3, H, W]: segments of things, soft classes, tokens of 16 x 16 pixels.

    Returns:
        ``pseudo_segmentation`` [M, H, W] int64, ``pseudo_class`` [M, 7] and ``pseudo_tokens`` [M, 10, h, w] float32.
    """

    def shares(images: Tensor) -> Tensor:
        return functional.avg_pool2d(network(images).softmax(dim=1), CELL, ceil_mode=True)

    networks = FrozenNetworks(
        segmenter=network,
        classifier=lambda images: network(images).softmax(dim=1).mean(dim=(2, 3)).log(),
        dense_classifier=lambda images: shares(images).log(),
    )
    batches = [networks.labels(chunk) for chunk in torch.split(inputs, 64)]
    labels = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    segments = labels["pseudo_segmentation"]
    labels["pseudo_segmentation"] = torch.where(segments < STUFF, PSEUDO_IGNORE, segments)
    return labels
