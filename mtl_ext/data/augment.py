"""Random changes of an image and its dense targets, as the published code of each protocol makes them.

Each is called with a sample, the fields of its dense targets and a generator that decides everything random.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.fields import Field, Interpolation, Sample, look_up, mirror, resize

SCALES = (1.0, 1.2, 1.5)


@dataclass(frozen=True)
class CropZoom:
    """MTAN's augmentation, also LibMTL's and CAGrad's: a part of the image, enlarged to the image's size.

    With a scale s drawn from `scales`, a part of int(H / s) x int(W / s) pixels at a uniform place is enlarged to
    H x W; image and fields of bilinear interpolation with corners aligned, so that normals between two surfaces are
    not unit vectors. Then a mirror with probability 0.5.

    Attributes:
        scales: the scales to draw from.
    """

    scales: tuple[float, ...] = SCALES

    def __call__(self, sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
        """A random change of the sample; sizes stay."""
        image, targets = sample
        height, width = image.shape[-2:]
        scale = _choose(self.scales, generator)
        h, w = int(height / scale), int(width / scale)
        top, left = _below(height - h + 1, generator), _below(width - w + 1, generator)

        def zoom(values: Tensor, interpolation: Interpolation) -> Tensor:
            part = values[..., top : top + h, left : left + w]
            return resize(part, (height, width), interpolation, align_corners=True)

        view = torch.tensor([[w / width, 0, left / width], [0, h / height, top / height]])
        changed = dict(targets)
        for name, field in fields.items():
            if field.cells:
                changed[name] = look_up(targets[name], view, _size(targets[name]), field.fill)
            else:
                changed[name] = field.scaled(zoom(targets[name], field.interpolation), scale)
        return _mirror_or_not((zoom(image, "bilinear"), changed), fields, generator)


@dataclass(frozen=True)
class ScaleCrop:
    """Auto-lambda's augmentation: the whole image enlarged, and a crop of a fixed size from it.

    With a scale s drawn from `scales`, the image becomes int(s * H) x int(s * W) pixels (bilinear, corners not
    aligned; fields in their own way, which is nearest for all in the published code), is continued to the right and
    below where the crop is larger (the image by reflection, fields by their fill), and cropped at a uniform place.
    Then a mirror with probability 0.5.

    Attributes:
        size: height and width of the crop; none means the image's own.
        scales: the scales to draw from.
    """

    size: tuple[int, int] | None = None
    scales: tuple[float, ...] = SCALES

    def __call__(self, sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
        """A random change of the sample."""
        image, targets = sample
        height, width = image.shape[-2:]
        out_height, out_width = self.size or (height, width)
        scale = _choose(self.scales, generator)
        large = (int(height * scale), int(width * scale))
        below, right = max(out_height - large[0], 0), max(out_width - large[1], 0)
        top = _below(large[0] + below - out_height + 1, generator)
        left = _below(large[1] + right - out_width + 1, generator)

        def crop(values: Tensor) -> Tensor:
            return values[..., top : top + out_height, left : left + out_width]

        around = (0, right, 0, below)
        enlarged = functional.pad(resize(image, large, "bilinear"), around, mode="reflect")
        view = torch.tensor(
            [[out_width / large[1], 0, left / large[1]], [0, out_height / large[0], top / large[0]]],
        )
        changed = dict(targets)
        for name, field in fields.items():
            target = targets[name]
            if field.cells:
                rows, columns = _size(target)
                grid = (max(1, round(rows * out_height / height)), max(1, round(columns * out_width / width)))
                changed[name] = look_up(target, view, grid, field.fill)
            else:
                target = resize(target, large, field.interpolation)
                changed[name] = field.scaled(
                    crop(functional.pad(target, (0, right, 0, below), value=field.fill)), scale
                )
        return _mirror_or_not((crop(enlarged), changed), fields, generator)


@dataclass(frozen=True)
class MirrorTurnScale:
    """The augmentation of ASTMT and MTI-Net: a mirror, then a turn and a scale about the image's middle.

    A mirror with probability 0.5; an angle in degrees, anticlockwise, drawn uniformly from [-angle, angle]; a scale
    drawn uniformly from `scales`, or from the listed ones. Sizes stay; the image is interpolated bicubically with 0
    outside, fields in their own way with their fill outside. Directions turn with the image.

    The published code warps in steps of 1/32 pixel and casts the image to bytes, where overshoots of the cubic wrap
    round from white to black; here coordinates are exact, and the image stays in its own range.

    Attributes:
        angle: the largest angle, in degrees.
        scales: the lowest and the highest scale, or with `listed` all possible scales.
        listed: whether `scales` lists them.
    """

    angle: float = 20.0
    scales: tuple[float, ...] = (0.75, 1.25)
    listed: bool = False

    def __call__(self, sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
        """A random change of the sample; sizes stay."""
        image, targets = _mirror_or_not(sample, fields, generator)
        angle = math.radians(self.angle * (2 * _uniform(generator) - 1))
        low, high = self.scales[0], self.scales[-1]
        scale = _choose(self.scales, generator) if self.listed else low + (high - low) * _uniform(generator)
        changed = dict(targets)
        for name, field in fields.items():
            target = targets[name]
            if field.vectors:
                target = torch.cat((_turn(target[:2], angle), target[2:]))
            if field.cells:
                view = _turned_view(_size(image), angle, scale)
                changed[name] = look_up(target, view, _size(target), field.fill)
            else:
                changed[name] = field.scaled(warp(target, angle, scale, field.interpolation, field.fill), scale)
        warped = warp(image, angle, scale, "bicubic", 0.0)
        return warped.clamp(image.min().clamp(max=0.0), image.max()), changed


def warp(values: Tensor, angle: float, scale: float, interpolation: Interpolation, fill: float) -> Tensor:
    """Values [H, W] or [C, H, W] turned by `angle` (radians, anticlockwise) and enlarged about the image's middle.

    The middle is the point (W / 2, H / 2) where pixel centres have whole coordinates, as OpenCV's users have it.
    """
    height, width = _size(values)
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    old_x, old_y = cos * x - sin * y + width / 2, sin * x + cos * y + height / 2
    # grid_sample counts from -1 at the first pixel's centre to 1 at the last one's, and fills with 0.
    points = torch.stack((2 * old_x / max(width - 1, 1) - 1, 2 * old_y / max(height - 1, 1) - 1), dim=-1)
    batch = values.reshape(1, -1, height, width).float() - fill
    warped = functional.grid_sample(batch, points[None], mode=interpolation, align_corners=True) + fill
    return warped.reshape(values.shape).to(values.dtype)


def _turn(xy: Tensor, angle: float) -> Tensor:
    """The x and y [2, H, W] of directions in an image turned by `angle`; y points down."""
    x, y = xy
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.stack((cos * x + sin * y, cos * y - sin * x))


def _turned_view(size: tuple[int, int], angle: float, scale: float) -> Tensor:
    """The view of :func:`look_up` for :func:`warp`."""
    height, width = size
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    across = torch.tensor([[cos, -sin * height / width], [sin * width / height, cos]], dtype=torch.float64)
    return torch.cat((across, 0.5 - across.sum(dim=1, keepdim=True) / 2), dim=1)


def _mirror_or_not(sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
    return mirror(sample, fields) if _uniform(generator) < 0.5 else sample


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator, dtype=torch.float64).item()


def _below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _choose(values: tuple[float, ...], generator: torch.Generator) -> float:
    return values[_below(len(values), generator)]


def _size(values: Tensor) -> tuple[int, int]:
    return values.shape[-2], values.shape[-1]
