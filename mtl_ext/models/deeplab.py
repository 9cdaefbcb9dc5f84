"""The head of DeepLabV3 (Chen et al. 2017) for dense tasks."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from mtl_ext.data import Task
from mtl_ext.methods.base import check_range
from mtl_ext.models.heads import HeadStyle, classifier, make_heads
from mtl_ext.models.layers import conv_norm
from mtl_ext.models.options import check_counts

RATES = (12, 24, 36)


class StagedEncoder(Protocol):
    """What a head has to know of its encoder."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the stages' outputs."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per pixel of the stages' outputs."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the same features seen through a pixel, three dilated windows and the whole map.

    The branch of the whole map has one value per image and channel, so batch normalisation needs two images in a
    training batch.

    Args:
        channels: of the input.
        width: channels of each branch and of the output.
        rates: the dilations of the windows, in pixels of the features. What exceeds the features' size sees padding.
        dropout: share of the output that is dropped in training.

    Raises:
        ValueError: ``rates`` holds something else than whole numbers of at least 1, or ``dropout`` is not in [0, 1).
    """

    def __init__(self, channels: int, width: int, rates: Sequence[int], dropout: float) -> None:
        super().__init__()
        check_counts(**{f"rates[{index}]": rate for index, rate in enumerate(rates)})
        check_range("dropout", dropout, 0.0, 1.0, open_high=True)
        windows = [conv_norm(channels, width, 3, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([conv_norm(channels, width), *windows])
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm(channels, width))
        self.project = nn.Sequential(*conv_norm(width * (len(self.branches) + 1), width), nn.Dropout(dropout))

    def forward(self, z: Tensor) -> Tensor:
        """[B, channels, h, w] -> [B, width, h, w]."""
        whole = self.whole(z).expand(-1, -1, *z.shape[-2:])
        out: Tensor = self.project(torch.cat([*(branch(z) for branch in self.branches), whole], dim=1))
        return out


def deeplab_head(
    channels: int, outputs: int, *, stride: int, width: int, rates: Sequence[int], dropout: float
) -> nn.Sequential:
    """Features [B, channels, H / stride, W / stride] -> [B, outputs, H, W]: ASPP, 3 x 3 convolution, prediction.

    The prediction is enlarged bilinearly by the stride, pixel centres aligned (``align_corners=False``, as in
    torchvision; the code of MTAN and Auto-lambda aligns corners).
    """
    return nn.Sequential(
        ASPP(channels, width, rates, dropout),
        *conv_norm(width, width, 3),
        nn.Conv2d(width, outputs, 1),
        nn.Upsample(scale_factor=float(stride), mode="bilinear"),
    )


def deeplab_heads(
    tasks: Sequence[Task], encoder: StagedEncoder, width: int, hidden: int, rates: Sequence[int], dropout: float
) -> dict[str, nn.Module]:
    """Heads on an encoder's last stage: DeepLabV3's for dense tasks, `classifier` for the others; arguments as theirs.

    Raises:
        ValueError: an option has no such value, or a task's kind is unknown.
    """
    stride = encoder.strides[-1]
    dense = partial(deeplab_head, stride=stride, width=width, rates=tuple(rates), dropout=dropout)
    return make_heads(tasks, encoder.channels[-1], HeadStyle(vector=partial(classifier, hidden=hidden), pixels=dense))
