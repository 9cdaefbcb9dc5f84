"""Two ResNets for colour and depth whose stages are fused, as paper 002's backbone."""

import torch
from torch import Tensor, nn

from mtl_ext.models.resnet import ResNet


class RGBDFusion(nn.Module):
    """Inputs [B, 4, H, W], colour and depth -> per stage the fused features of two ResNets.

    At every stage the outputs of both networks are concatenated and go through a 1 x 1 convolution and batch
    normalisation; each network goes on from its own output. Depth is shown to its network as a grey image, three times,
    so that weights of colour images fit. The kernel's size is ours; the paper leaves it open.

    Args:
        color: the network for channels 0 to 2.
        depth: the network for channel 3, which has the same stages and three input channels, too.

    Attributes:
        channels: of the fused stages.
        strides: input pixels per pixel of the fused stages.

    Raises:
        ValueError: the two networks differ in their stages.
    """

    def __init__(self, color: ResNet, depth: ResNet) -> None:
        super().__init__()
        if (color.channels, color.strides) != (depth.channels, depth.strides):
            raise ValueError(
                f"depth has stages of channels {depth.channels} and strides {depth.strides}, expected those of color: "
                f"{color.channels} and {color.strides}"
            )
        self.color = color
        self.depth = depth
        self.channels = color.channels
        self.strides = color.strides
        self.fusions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * count, count, 1, bias=False), nn.BatchNorm2d(count)) for count in self.channels
        )

    def stages(self, inputs: Tensor) -> list[Tensor]:
        """The four fused stages, finest first.

        Raises:
            ValueError: inputs have other than 4 channels.
        """
        if inputs.shape[1] != 4:
            raise ValueError(f"inputs have {inputs.shape[1]} channels, expected 4: red, green, blue and depth")
        color = self.color.stages(inputs[:, :3])
        depth = self.depth.stages(inputs[:, 3:].expand(-1, 3, -1, -1))
        pairs = zip(self.fusions, color, depth, strict=True)
        return [fusion(torch.cat([c, d], dim=1)) for fusion, c, d in pairs]

    def forward(self, inputs: Tensor) -> Tensor:
        """The last fused stage, [B, channels[-1], H / 32, W / 32], or H / 8 if dilated."""
        return self.stages(inputs)[-1]
