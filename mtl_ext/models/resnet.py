"""ResNet-18, -34 and -50 (He et al. 2016), plain and dilated, without their classifier."""

from pathlib import Path

from torch import Tensor, nn

from mtl_ext.methods.base import check_choice
from mtl_ext.models.options import check_counts
from mtl_ext.models.weights import draw_convolutions, load_weights


class ResNet(nn.Module):
    """Inputs [B, in_channels, H, W] -> the last stage's output [B, channels[-1], H / stride, W / stride].

    Parameters have torchvision's names, so that its state dicts fit. Sides that are no multiples of the stride are
    rounded up.

    Args:
        depth: 18, 34 or 50 layers.
        in_channels: channels of the inputs.
        width: channels of the stem; 64 in the paper, less makes tiny networks of the same structure.
        dilated: the last two stages keep the resolution and dilate their convolutions instead (Chen et al. 2017): at
            every fourth pixel the output is that of the plain network with the same parameters.
        weights: file of a state dict in torchvision's format to begin from.

    Attributes:
        channels: of the four stages' outputs.
        strides: input pixels per pixel of the four stages' outputs: 4, 8, 16, 32; dilated 4, 8, 8, 8.

    Raises:
        OSError: the file of weights cannot be read.
        ValueError: an option has no such value, or the weights do not fit.
    """

    def __init__(
        self,
        depth: int = 18,
        in_channels: int = 3,
        width: int = 64,
        dilated: bool = False,
        weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        check_choice("depth", depth, tuple(LAYOUTS))
        check_counts(in_channels=in_channels, width=width)
        self.conv1 = _conv(in_channels, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        expansion = LAYOUTS[depth][0].expansion
        self.channels = tuple(width * expansion * 2**stage for stage in range(4))
        self.strides = (4, 8, 8, 8) if dilated else (4, 8, 16, 32)
        self.layer1 = _stage(depth, 0, width, width)
        self.layer2 = _stage(depth, 1, self.channels[0], width * 2, stride=2)
        self.layer3 = _stage(depth, 2, self.channels[1], width * 4, stride=2, dilation=2 if dilated else 1)
        self.layer4 = _stage(depth, 3, self.channels[2], width * 8, stride=2, dilation=4 if dilated else 1)
        draw_convolutions(self)
        if weights is not None:
            load_weights(self, weights, "fc.")

    def blocks(self) -> list[nn.Sequential]:
        """The network as five modules to be run in turn: the stem with its pooling, and the four stages."""
        return [nn.Sequential(self.conv1, self.bn1, self.relu, self.maxpool), *self.layers()]

    def stem(self, inputs: Tensor) -> Tensor:
        """What enters the first stage, [B, width, H / 4, W / 4]."""
        out: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(inputs))))
        return out

    def layers(self) -> list[nn.Sequential]:
        """The four stages."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def stages(self, inputs: Tensor) -> list[Tensor]:
        """The four stages' outputs (C2 to C5), finest first; each is computed from the one before."""
        outputs = [self.stem(inputs)]
        for layer in self.layers():
            outputs.append(layer(outputs[-1]))
        return outputs[1:]

    def forward(self, inputs: Tensor) -> Tensor:
        """The last stage's output."""
        return self.stages(inputs)[-1]


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut.

    Args:
        inputs: channels of the input.
        planes: channels of the convolutions.
        stride: of the block.
        dilation: of the convolutions.
        lost_stride: the stride that the dilation stands for, if it begins in this block. The convolution that would
            have had the stride still sees the finer grid, and is dilated less by this factor.
    """

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, lost_stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, planes, 3, stride, dilation // lost_stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, planes, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        out: Tensor = self.relu(y)
        return out


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two 1 x 1 convolutions, beside a shortcut.

    The stride is that of the 3 x 3 convolution, as in torchvision; in the paper the first one has it.

    Args:
        inputs: channels of the input.
        planes: channels of the 3 x 3 convolution; the output has four times as many.
        stride: see `BasicBlock`.
        dilation: see `BasicBlock`.
        lost_stride: see `BasicBlock`.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, dilation: int, lost_stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = _conv(inputs, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride, dilation // lost_stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 planes, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y)) + self.downsample(x)
        out: Tensor = self.relu(y)
        return out


def _stage(depth: int, stage: int, inputs: int, planes: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A stage's blocks; with dilation, that takes the place of the stride."""
    block, counts = LAYOUTS[depth]
    first = block(inputs, planes, stride if dilation == 1 else 1, dilation, stride if dilation > 1 else 1)
    others = [block(planes * block.expansion, planes, 1, dilation, 1) for _ in range(counts[stage] - 1)]
    return nn.Sequential(first, *others)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias whose padding keeps the resolution, but for the stride."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """What stands beside a block: nothing where the shapes agree, else a projection."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}
