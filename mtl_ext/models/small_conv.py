"""A small convolutional network for canvases of a few dozen pixels: encoder and heads."""

from collections.abc import Sequence

from torch import nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing

PATCH = 4


def small_conv(tasks: Sequence[Task], size: int = 36, in_channels: int = 1, width: int = 16) -> HardSharing:
    """Hard parameter sharing over :func:`conv_encoder`, with the head that each task's kind asks for.

    Args:
        tasks: K tasks; one gives the single-task network.
        size: height and width of the inputs, a multiple of 4.
        in_channels: channels of the inputs.
        width: channels of the features.

    Raises:
        ValueError: ``size`` is not a multiple of 4, or a task's kind is unknown.
    """
    if size % PATCH:
        raise ValueError(f"size is {size}, expected a multiple of {PATCH}")
    heads = {task.name: make_head(task, width, size // PATCH) for task in tasks}
    return HardSharing(conv_encoder(in_channels, width), heads)


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


def make_head(task: Task, width: int, size: int) -> nn.Module:
    """Head from features [B, width, size, size] to what ``task.kind`` promises.

    Raises:
        ValueError: an unknown kind.
    """
    if task.kind == "pixels":
        return nn.Sequential(
            nn.Conv2d(width, 16, 1),
            nn.ReLU(),
            nn.Conv2d(16, task.outputs * PATCH**2, 1),
            nn.PixelShuffle(PATCH),
        )
    if task.kind in ("classes", "values"):
        return nn.Sequential(
            nn.Conv2d(width, 8, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * size**2, 64),
            nn.ReLU(),
            nn.Linear(64, task.outputs),
        )
    raise ValueError(f"task {task.name!r} has kind {task.kind!r}, expected 'classes', 'pixels' or 'values'")
