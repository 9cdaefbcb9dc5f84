"""Dense targets under geometric changes of their image: what scales, mirrors, fills, and what stays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Sample = tuple[Tensor, dict[str, Tensor]]
Interpolation = Literal["nearest", "bilinear", "bicubic"]


@dataclass(frozen=True)
class Field:
    """How a dense target follows its image.

    Attributes:
        fill: what lies outside of the image: the mark for pixels without a label.
        interpolation: how values between pixels are made.
        vectors: whether the values are directions [3, H, W] (x, y, z) in camera coordinates, which turn with the image.
        power: values are multiplied by scale ** power when the image is enlarged: -1 for depth (what looks larger is
            nearer), 1 for disparity, 0 for what does not depend on the distance. Values equal to `fill` stay.
        cells: whether this is a coarser grid than the image, whose cells are looked up but never blended.
    """

    fill: float
    interpolation: Interpolation = "nearest"
    vectors: bool = False
    power: int = 0
    cells: bool = False

    def scaled(self, target: Tensor, scale: float) -> Tensor:
        """The target's values in an image that is enlarged by `scale`."""
        if self.power == 0 or scale == 1.0:
            return target
        return torch.where(target == self.fill, target, target * scale**self.power)


def resize(
    values: Tensor, size: tuple[int, int], interpolation: Interpolation = "nearest", align_corners: bool = False
) -> Tensor:
    """Values [H, W] or [C, H, W] at another size, in their own dtype.

    Args:
        values: image or target.
        size: the new height and width.
        interpolation: nearest takes the pixel at ``floor(i * H / size)``, as OpenCV and torch do.
        align_corners: whether the corner pixels' centres (else the images' borders) lie on one another.
    """
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    batch = values.reshape(1, -1, *values.shape[-2:])
    if interpolation == "nearest":
        rows, columns = (_nearest(old, new) for old, new in zip(values.shape[-2:], size, strict=True))
        resized = batch[..., rows[:, None], columns]
    else:
        resized = functional.interpolate(batch, size=size, mode=interpolation, align_corners=align_corners)
    return resized.reshape(*values.shape[:-2], *size)


def mirror(sample: Sample, fields: Mapping[str, Field]) -> Sample:
    """The sample as a mirror shows it: left and right exchanged, and the x of directions negated."""
    image, targets = sample
    mirrored = dict(targets)
    for name, field in fields.items():
        target = targets[name].flip(-1)
        mirrored[name] = torch.cat((-target[:1], target[1:])) if field.vectors else target
    return image.flip(-1), mirrored


def look_up(cells: Tensor, view: Tensor, size: tuple[int, int], fill: float) -> Tensor:
    """The cells [..., h, w] that the centres of a new grid fall into.

    Args:
        cells: a grid over the whole old image.
        view: [2, 3], from the new image to the old one: x and y of the old image, from 0 to 1 across it, are
            ``view @ (x, y, 1)`` of the new image's.
        size: rows and columns of the new grid.
        fill: what lies outside of the old image.
    """
    height, width = cells.shape[-2:]
    y, x = ((torch.arange(count, dtype=torch.float64) + 0.5) / count for count in size)
    points = torch.stack((x.expand(size), y[:, None].expand(size), torch.ones(size, dtype=torch.float64)), dim=-1)
    old_x, old_y = (points @ view.double().T).unbind(-1)
    columns, rows = (old_x * width).floor().long(), (old_y * height).floor().long()
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = cells[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return torch.where(inside, found, torch.full_like(found, fill))


def _nearest(old: int, new: int) -> Tensor:
    return torch.arange(new) * old // new
