"""Hard parameter sharing over a ResNet ("Split"), and with DeepLabV3's dilated one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.deeplab import RATES, deeplab_heads
from mtl_ext.models.heads import sides_multiple
from mtl_ext.models.resnet import ResNet


def resnet_split(
    tasks: Sequence[Task],
    depth: int = 18,
    width: int = 64,
    dilated: bool = False,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 512,
    rates: Sequence[int] = RATES,
    dropout: float = 0.5,
) -> HardSharing:
    """One ResNet for all tasks, with a classifier or a DeepLabV3 head for each; one task gives its single-task network.

    Args:
        tasks: K tasks.
        depth: see `ResNet`.
        width: see `ResNet`; dense heads have four times as many channels.
        dilated: see `ResNet`.
        in_channels: channels of the inputs.
        weights: see `ResNet`.
        hidden: units of the hidden layer in the heads of class and value tasks; 0: one linear layer.
        rates: dilations of the dense heads, in pixels of the features; smaller for small inputs.
        dropout: of the dense heads.

    Returns:
        The network; with dense tasks the sides of its inputs are multiples of the encoder's stride, 32 or 8.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task's kind is unknown.
    """
    encoder = ResNet(depth, in_channels, width, dilated, weights)
    heads = deeplab_heads(tasks, encoder, 4 * width, hidden, rates, dropout)
    return HardSharing(encoder, heads, sides_multiple(tasks, encoder.strides[-1]))


deeplab = partial(resnet_split, depth=50, dilated=True)
