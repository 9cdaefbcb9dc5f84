"""A light network for dense tasks on small images, which trains on one CPU thread."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from mtl_ext.data import Task
from mtl_ext.methods.base import check_choice
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.heads import HeadStyle, classifier, make_heads, sides_multiple, subpixel_head
from mtl_ext.models.layers import conv_norm
from mtl_ext.models.options import check_counts


def small_dense(
    tasks: Sequence[Task], width: int = 32, in_channels: int = 3, stride: int = 4, hidden: int = 32
) -> HardSharing:
    """Hard parameter sharing over `dense_encoder`, for images of any size: 64 x 96, say.

    Args:
        tasks: K tasks.
        width: channels of the features.
        in_channels: channels of the inputs.
        stride: input pixels per pixel of the features: 4 or 8.
        hidden: channels or units of the heads' hidden layer.

    Returns:
        The network; with dense tasks the sides of its inputs are multiples of the stride.

    Raises:
        ValueError: an option has no such value, or a task's kind is unknown.
    """
    check_counts(width=width, in_channels=in_channels, hidden=hidden)
    check_choice("stride", stride, (4, 8))
    style = HeadStyle(
        vector=partial(classifier, hidden=hidden),
        pixels=partial(subpixel_head, hidden=hidden, stride=stride),
    )
    encoder = dense_encoder(in_channels, width, stride)
    return HardSharing(encoder, make_heads(tasks, width, style), sides_multiple(tasks, stride))


def dense_encoder(in_channels: int, width: int, stride: int) -> nn.Sequential:
    """Inputs [B, in_channels, H, W] -> features [B, width, H / stride, W / stride] that see 31 x 31 of their own size.

    Patches of stride x stride pixels, then convolutions of growing dilation with batch normalisation.
    """
    layers: list[nn.Module] = [nn.PixelUnshuffle(stride)]
    channels = in_channels * stride**2
    for dilation in (1, 2, 4, 8):
        layers += conv_norm(channels, width, 3, dilation=dilation)
        channels = width
    return nn.Sequential(*layers)
