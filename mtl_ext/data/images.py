"""Whole images as inputs: files read at one size and written, images in memory augmented batch by batch."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.fields import Field, Sample, mirror
from mtl_ext.data.reading import read_image
from mtl_ext.data.task import Batch, chunks, divided
from mtl_ext.files import write_atomically

JPEG_QUALITY = 92
# The key of an image's comment in Pillow.
COMMENT = "comment"


@dataclass(frozen=True)
class ImageSplit:
    """M images that fit into memory and their targets.

    Inputs of a batch are ``(image / 255 - mean) / std`` [B, C, H, W] float32. In a pass with a generator, images are
    shifted by up to `shift` pixels in either direction (the uncovered border is black before normalisation, as a random
    crop after padding gives it) and, with `flip`, half of them are mirrored.

    Attributes:
        images: [M, C, H, W] uint8.
        targets: task -> [M, ...].
        mean: of each channel, [C]; one value serves all.
        std: of each channel, [C]; one value serves all.
        shift: pixels.
        flip: mirror left and right with probability one half.
    """

    images: Tensor
    targets: Mapping[str, Tensor]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    shift: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def divide(self, share: float, generator: torch.Generator) -> tuple["ImageSplit", "ImageSplit"]:
        """Two splits without a common sample, see :class:`mtl_ext.data.holdout.DivisibleSplit`."""
        rest, held = (
            replace(self, images=self.images[index], targets={k: target[index] for k, target in self.targets.items()})
            for index in divided(len(self), share, generator)
        )
        return rest, held

    def batches(self, batch_size: int, generator: torch.Generator | None = None, skip: int = 0) -> Iterator[Batch]:
        """One pass over the samples, see :meth:`mtl_ext.data.Split.batches`."""
        count = len(self)
        if generator is None:
            return (self._batch(self.images[i], i) for i in chunks(torch.arange(count), batch_size, skip))
        order = torch.randperm(count, generator=generator)
        offsets = torch.randint(2 * self.shift + 1, (count, 2), generator=generator)
        mirrored = torch.rand(count, generator=generator) < (0.5 if self.flip else 0.0)
        positions = chunks(torch.arange(count), batch_size, skip)
        return (self._batch(self._augmented(order[i], offsets[i], mirrored[i]), order[i]) for i in positions)

    def _batch(self, images: Tensor, index: Tensor) -> Batch:
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        inputs = (images.float() / 255.0 - mean) / std
        return Batch(inputs, {name: target[index] for name, target in self.targets.items()})

    def _augmented(self, index: Tensor, offsets: Tensor, mirrored: Tensor) -> Tensor:
        images = self.images[index]
        height, width = images.shape[-2:]
        padded = functional.pad(images, [self.shift] * 4)
        rows = offsets[:, :1] + torch.arange(height)
        columns = offsets[:, 1:] + torch.arange(width)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        sample = torch.arange(len(index))[:, None, None]
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def read_resized(path: Path, size: int | None) -> Tensor:
    """An image file as [3, size, size] float32 in [0, 1]; without a size, as it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken.
    """
    image = read_image(path) / 255.0
    return image if size is None else resize_smoothly(image, (size, size))


def resize_smoothly(image: Tensor, size: tuple[int, int]) -> Tensor:
    """An image [C, H, W] at another size, bilinear and with antialiasing, as image libraries shrink photographs."""
    if image.shape[-2:] == size:
        return image
    return functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]


def mirror_half(sample: Sample, fields: Mapping[str, Field], generator: torch.Generator) -> Sample:
    """The sample, mirrored with probability one half."""
    return mirror(sample, fields) if torch.rand((), generator=generator) < 0.5 else sample


def write_image(path: Path, pixels: np.ndarray, comment: str | None = None) -> None:
    """Writes an image [H, W, 3] or [H, W] uint8 as PNG or JPEG, by the path's suffix, with a comment."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    content = io.BytesIO()
    if path.suffix == ".png":
        info = PngInfo()
        if comment is not None:
            info.add_text(COMMENT, comment)
        Image.fromarray(pixels).save(content, "PNG", pnginfo=info)
    else:
        Image.fromarray(pixels).save(content, "JPEG", quality=JPEG_QUALITY, comment=comment or "")
    write_atomically(path, lambda file: file.write(content.getvalue()))
