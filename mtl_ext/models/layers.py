"""Layers that several networks are made of."""

from torch import nn


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation, rectifier; padding keeps the resolution, but for the stride."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())
