"""The last step before a sample goes into a network: the form that a protocol feeds."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.fields import Field, Sample, resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IGNORE = 255


def center(sample: Sample, fields: Mapping[str, Field]) -> Sample:
    """Colors from [0, 1] to [-1, 1], as auto-lambda feeds them."""
    image, targets = sample
    return 2.0 * image - 1.0, targets


@dataclass(frozen=True)
class ResizeAndMark:
    """What ASTMT and MTI-Net do last: one size for all images, 255 for no label, ImageNet's mean and deviation.

    The image (colors 0 .. 255) is resized bicubically, fields in their own way; directions are made unit vectors
    again. Directions of length 0 become 255 in all channels, and in the targets named, zeros become 255.

    Attributes:
        size: height and width.
        zeros: targets in which single zeros become 255 (depth).
        all_zeros: targets that become 255 only where a whole image is 0 (parts, of an image without people).
    """

    size: tuple[int, int]
    zeros: tuple[str, ...] = ()
    all_zeros: tuple[str, ...] = ()

    def __call__(self, sample: Sample, fields: Mapping[str, Field]) -> Sample:
        """The sample in the network's form."""
        image, targets = sample
        prepared = dict(targets)
        for name, field in fields.items():
            if not field.cells:
                target = resize(targets[name], self.size, field.interpolation)
                prepared[name] = _unit_or_marked(target) if field.vectors else target
        for name in self.zeros:
            prepared[name] = prepared[name].masked_fill(prepared[name] == 0, IGNORE)
        for name in self.all_zeros:
            if not bool(prepared[name].any()):
                prepared[name] = torch.full_like(prepared[name], IGNORE)
        return standardize(resize(image, self.size, "bicubic").clamp(0.0, 255.0)), prepared


def standardize(image: Tensor) -> Tensor:
    """Colors [3, H, W] from 0 .. 255 to about -2 .. 2: minus ImageNet's mean, divided by its standard deviation."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image / 255.0 - mean) / std


def _unit_or_marked(normals: Tensor) -> Tensor:
    unit = functional.normalize(normals, dim=0)
    return torch.where((unit != 0).any(dim=0), unit, torch.tensor(float(IGNORE)))
