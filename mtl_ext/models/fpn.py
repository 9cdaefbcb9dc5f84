"""Feature pyramid networks (Lin et al. 2017), and hard sharing over one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from mtl_ext.data import Task
from mtl_ext.models.architecture import HardSharing, tapped
from mtl_ext.models.heads import HeadStyle, classifier, make_heads, sides_multiple
from mtl_ext.models.resnet import ResNet
from mtl_ext.models.rgbd_fusion import RGBDFusion


def resnet_fpn(
    tasks: Sequence[Task],
    depth: int = 18,
    width: int = 64,
    in_channels: int = 3,
    weights: str | Path | None = None,
    hidden: int = 512,
) -> HardSharing:
    """A ResNet with feature pyramid for all tasks: class and value tasks read C5, dense tasks the pyramid.

    Args:
        tasks: K tasks.
        depth: see `ResNet`.
        width: see `ResNet`; the pyramid has four times as many channels.
        in_channels: channels of the inputs.
        weights: see `ResNet`.
        hidden: units of the hidden layer in the heads of class and value tasks; 0: one linear layer.

    Returns:
        The network; with dense tasks the sides of its inputs are multiples of 4.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, the weights do not fit, or a task's kind is unknown.
    """
    backbone = ResNet(depth, in_channels, width, weights=weights)
    style = HeadStyle(
        vector=lambda channels, outputs: nn.Sequential(
            TopLevel(), *classifier(backbone.channels[-1], outputs, hidden=hidden)
        ),
        pixels=partial(PyramidHead, stride=backbone.strides[0]),
    )
    heads = make_heads(tasks, 4 * width, style)
    return HardSharing(PyramidEncoder(backbone, 4 * width), heads, sides_multiple(tasks, backbone.strides[0]))


class FeaturePyramid(nn.Module):
    """The stages' outputs C2 to C5 -> P2 to P5, of equal width: each level with what the coarser ones know.

    Args:
        channels: of the stages' outputs, finest first.
        width: channels of every level.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels [B, width, h, w] of the stages' sizes, finest first; none is computed from another."""
        merged: list[Tensor] = []
        for lateral, stage in zip(reversed(self.lateral), reversed(stages), strict=True):
            level = lateral(stage)
            if merged:
                level = level + functional.interpolate(merged[0], size=level.shape[-2:])
            merged.insert(0, level)
        return tuple(smooth(level) for smooth, level in zip(self.smooth, merged, strict=True))


class PyramidEncoder(nn.Module):
    """Inputs -> (P2, P3, P4, P5, C5): the pyramid over a backbone, and a tap of the backbone's last stage.

    Args:
        backbone: has stages.
        width: channels of the pyramid.
    """

    def __init__(self, backbone: ResNet | RGBDFusion, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramid(backbone.channels, width)

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Five tensors, none of which is computed from another."""
        stages = self.backbone.stages(inputs)
        levels: tuple[Tensor, ...] = self.pyramid(stages)
        return (*levels, tapped(stages[-1]))


class TopLevel(nn.Module):
    """(P2, ..., C5) -> C5."""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The last feature."""
        return features[-1]


class PyramidHead(nn.Module):
    """(P2, ..., P5, C5) -> [B, outputs, H, W]: the pyramid's levels convolved, enlarged to P2 and summed.

    As in the semantic branch of panoptic feature pyramid networks (Kirillov et al. 2019), with one convolution per
    level.

    Args:
        channels: of the pyramid.
        outputs: of the task.
        stride: input pixels per pixel of P2.
    """

    def __init__(self, channels: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))
        self.predict = nn.Conv2d(channels, outputs, 1)
        self.enlarge = nn.Upsample(scale_factor=float(stride), mode="bilinear")

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """The task's output."""
        size = features[0].shape[-2:]
        levels = [functional.relu(conv(z)) for conv, z in zip(self.convolutions, features[:-1], strict=True)]
        total = levels[0]
        for level in levels[1:]:
            total = total + functional.interpolate(level, size=size, mode="bilinear")
        out: Tensor = self.enlarge(self.predict(total))
        return out
