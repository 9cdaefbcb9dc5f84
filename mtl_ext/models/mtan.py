"""MTAN, the multi-task attention network (Liu et al. 2019), over a ResNet."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.models.architecture import Branched, tapped
from mtl_ext.models.deeplab import RATES, deeplab_heads
from mtl_ext.models.heads import sides_multiple
from mtl_ext.models.layers import conv_norm
from mtl_ext.models.resnet import ResNet


def mtan(
    tasks: Sequence[Task],
    depth: int = 50,
    width: int = 64,
    dilated: bool = True,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 512,
    rates: Sequence[int] = RATES,
    dropout: float = 0.5,
) -> Branched:
    """One ResNet, per task an attention module at each of its stages, and a head per task.

    The boundaries: the backbone is shared; the features are two taps per stage, all that the attention modules read;
    a task's attention and head are its own. ``head_features`` is the output of the last attention module, so that a
    dummy copy of the head sends gradients through attention and backbone.

    Args:
        tasks: K tasks.
        depth: see `ResNet`, as the next four.
        width: channels of the stem; dense heads have four times as many.
        dilated: keep the resolution of the last two stages.
        in_channels: channels of the inputs.
        weights: file for the backbone to begin from.
        hidden: see `resnet_split`, as the last two.
        rates: dilations of the dense heads.
        dropout: of the dense heads.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task's kind is unknown.
    """
    backbone = ResNet(depth, in_channels, width, dilated, weights)
    heads = deeplab_heads(tasks, backbone, 4 * width, hidden, rates, dropout)
    branches = {task.name: Attention(backbone.channels, backbone.strides) for task in tasks}
    return Branched(TappedResNet(backbone), branches, heads, sides_multiple(tasks, backbone.strides[-1]))


class TappedResNet(nn.Module):
    """Inputs -> two taps per stage: before its last block (u) and after it (p), u1, p1, u2, p2, ...

    The trunk goes on beside the taps, which therefore do not depend on one another.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Eight tensors."""
        x = self.resnet.stem(inputs)
        taps: list[Tensor] = []
        for layer in self.resnet.layers():
            *early, last = layer
            for block in early:
                x = block(x)
            taps.append(tapped(x))
            x = last(x)
            taps.append(tapped(x))
        return tuple(taps)


class Attention(nn.Module):
    """A task's attention: soft masks on the shared features, stage after stage.

    ``a_j = h_j(g_j([u_j, f_j(a_{j-1})])) * p_j``, with 1 x 1 convolutions and batch normalisation for g (rectifier) and
    h (sigmoid); f brings a_{j-1} to the channels and resolution of stage j by a 3 x 3 convolution between two of 1 x 1.
    In the paper and its code the tasks share f; here every task has its own, so that nothing behind the features is
    shared.

    Args:
        channels: of the stages' outputs.
        strides: input pixels per pixel of the stages' outputs.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        entering = [channels[0], *(2 * count for count in channels[1:])]
        self.masks = nn.ModuleList(_mask(inputs, outputs) for inputs, outputs in zip(entering, channels, strict=True))
        steps = zip(channels[:-1], channels[1:], strides[:-1], strides[1:], strict=True)
        self.carries = nn.ModuleList(
            _carry(inputs, outputs, after // before) for inputs, outputs, before, after in steps
        )

    def forward(self, taps: Sequence[Tensor]) -> Tensor:
        """The last stage's features as the task sees them, [B, channels[-1], h, w]."""
        attended = self.masks[0](taps[0]) * taps[1]
        for mask, carry, u, p in zip(self.masks[1:], self.carries, taps[2::2], taps[3::2], strict=True):
            attended = mask(torch.cat([u, carry(attended)], dim=1)) * p
        out: Tensor = attended
        return out


def _mask(inputs: int, outputs: int) -> nn.Sequential:
    """Layers g and h: channels -> mask with values in (0, 1)."""
    between = max(1, outputs // 4)
    last = [nn.Conv2d(between, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.Sigmoid()]
    return nn.Sequential(*conv_norm(inputs, between), *last)


def _carry(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Layer f: from one stage's attended features to the next stage's channels and resolution."""
    between = max(1, outputs // 4)
    return nn.Sequential(
        *conv_norm(inputs, between),
        *conv_norm(between, between, 3, stride),
        *conv_norm(between, outputs),
    )
