"""Prediction heads: which head a task's kind asks for, and the common ones."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from mtl_ext.data import Task
from mtl_ext.models.options import check_counts

MakeHead = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class HeadStyle:
    """The heads of a network, by kind of task; each is made from (channels of the features, outputs of the task).

    Attributes:
        vector: for "classes" and "values": features -> [B, outputs].
        pixels: for "pixels": features [B, channels, H / stride, W / stride] -> [B, outputs, H, W]; None where the
            network has no such heads.
    """

    vector: MakeHead
    pixels: MakeHead | None = None


def make_head(task: Task, channels: int, style: HeadStyle) -> nn.Module:
    """The head that a task's kind asks for.

    Raises:
        ValueError: a kind for which the network has no head.
    """
    makers = {"classes": style.vector, "pixels": style.pixels, "values": style.vector}
    make = makers.get(task.kind)
    if make is None:
        kinds = " or ".join(repr(kind) for kind, maker in makers.items() if maker is not None)
        raise ValueError(f"task {task.name!r} has kind {task.kind!r}, expected {kinds} for this network")
    return make(channels, task.outputs)


def make_heads(tasks: Sequence[Task], channels: int, style: HeadStyle) -> dict[str, nn.Module]:
    """Task -> head."""
    return {task.name: make_head(task, channels, style) for task in tasks}


def sides_multiple(tasks: Sequence[Task], stride: int) -> int:
    """What the sides of inputs have to be multiples of, so that dense outputs have the inputs' size."""
    return stride if any(task.kind == "pixels" for task in tasks) else 1


def fresh_copy(head: nn.Module) -> nn.Module:
    """A copy with parameters drawn anew and statistics at their start: another decoder of the same kind.

    Raises:
        TypeError: a layer with parameters of its own has no ``reset_parameters``.
    """
    copy = deepcopy(head)
    for name, layer in copy.named_modules():
        reset = getattr(layer, "reset_parameters", None)
        if reset is not None:
            reset()
        elif next(layer.parameters(recurse=False), None) is not None:
            raise TypeError(f"layer {name!r} ({type(layer).__name__}) of the head has no reset_parameters to draw with")
    return copy


def classifier(channels: int, outputs: int, *, hidden: int, pool: bool = True) -> nn.Sequential:
    """Two fully connected layers, or one: features -> [B, outputs].

    Args:
        channels: of the features.
        outputs: number of classes or values.
        hidden: units of the hidden layer; 0: a single layer.
        pool: average features [B, channels, H, W] over the pixels first; otherwise they are [B, channels].

    Raises:
        ValueError: ``hidden`` is no whole number of at least 0.
    """
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pool else []
    if hidden != 0:
        check_counts(hidden=hidden)
        layers += [nn.Linear(channels, hidden), nn.ReLU()]
        channels = hidden
    return nn.Sequential(*layers, nn.Linear(channels, outputs))


def subpixel_head(channels: int, outputs: int, *, hidden: int, stride: int) -> nn.Sequential:
    """Two 1 x 1 convolutions, the second of which gives every output pixel below a feature its own channels.

    Cheap, and sharper than interpolation (Shi et al. 2016): features [B, channels, H / stride, W / stride] ->
    [B, outputs, H, W].
    """
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, outputs * stride**2, 1),
        nn.PixelShuffle(stride),
    )
