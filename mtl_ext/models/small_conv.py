"""A small convolutional network for canvases of a few dozen pixels: encoder and heads."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing
from mtl_ext.models.heads import HeadStyle, make_heads, subpixel_head
from mtl_ext.models.options import check_counts

PATCH = 4


def small_conv(tasks: Sequence[Task], size: int = 36, in_channels: int = 1, width: int = 16) -> HardSharing:
    """Hard parameter sharing over :func:`conv_encoder`, with the head that each task's kind asks for.

    Args:
        tasks: K tasks; one gives the single-task network.
        size: height and width of the inputs, a multiple of 4.
        in_channels: channels of the inputs.
        width: channels of the features.

    Raises:
        ValueError: an option cannot be, ``size`` is not a multiple of 4, or a task's kind is unknown.
    """
    check_counts(in_channels=in_channels, width=width)
    if size % PATCH:
        raise ValueError(f"size is {size}, expected a multiple of {PATCH}")
    style = HeadStyle(
        vector=partial(_canvas_classifier, size=size // PATCH),
        pixels=partial(subpixel_head, hidden=16, stride=PATCH),
    )
    heads = make_heads(tasks, width, style)
    return HardSharing(conv_encoder(in_channels, width), heads, PATCH)


def conv_encoder(in_channels: int, width: int) -> nn.Sequential:
    """Inputs [B, in_channels, H, W] -> features [B, width, H / 4, W / 4].

    Two convolutions over patches of 4 x 4 pixels: a step takes milliseconds on one thread.
    """
    return nn.Sequential(
        nn.PixelUnshuffle(PATCH),
        nn.Conv2d(in_channels * PATCH**2, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
    )


def _canvas_classifier(width: int, outputs: int, *, size: int) -> nn.Sequential:
    """Features [B, width, size, size] -> [B, outputs], knowing where on the canvas a feature lies."""
    return nn.Sequential(
        nn.Conv2d(width, 8, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * size**2, 64),
        nn.ReLU(),
        nn.Linear(64, outputs),
    )
