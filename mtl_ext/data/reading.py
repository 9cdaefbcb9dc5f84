"""Reading the files of a data set: what is missing or broken is named, with what was expected in its place."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The files of a data set as they must lie on disk, for messages about what is missing.

    Attributes:
        name: of the data set.
        tree: what a reader needs to put files in their places.
    """

    name: str
    tree: str

    def missing(self, what: str) -> FileNotFoundError:
        """The error that says what was looked for, and the whole layout."""
        return FileNotFoundError(f"{self.name}: {what}. The layout must be\n{self.tree}")

    def folder(self, *choices: Path) -> Path:
        """The first of the folders that exists.

        Raises:
            FileNotFoundError: none does.
        """
        for path in choices:
            if path.is_dir():
                return path
        raise self.missing(f"there is no folder {' or '.join(map(str, choices))}")

    def file(self, *choices: Path) -> Path:
        """The first of the files that exists.

        Raises:
            FileNotFoundError: none does.
        """
        for path in choices:
            if path.is_file():
                return path
        raise self.missing(f"there is no file {' or '.join(map(str, choices))}")

    def numbered(self, folder: Path, suffix: str) -> list[str]:
        """The names 0 .. N - 1 of a folder's N files with the suffix, without it.

        Raises:
            FileNotFoundError: no such folder or file, or a number is left out.
        """
        found = {path.stem for path in self.folder(folder).glob(f"*{suffix}")}
        if not found:
            raise self.missing(f"{folder} holds no {suffix} file")
        names = [str(number) for number in range(len(found))]
        for name in names:
            if name not in found:
                raise self.missing(f"{folder} holds {len(found)} {suffix} files, but no {name}{suffix}")
        return names

    def listed(self, path: Path) -> list[str]:
        """The names in a list of samples, one a line.

        Raises:
            FileNotFoundError: no such list.
            ValueError: it is empty or not text, or names a sample twice.
        """
        with reading(self.file(path)):
            names = path.read_text(encoding="utf-8").split()
        if not names:
            raise ValueError(f"{path} is empty, expected the names of samples, one a line")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{path} names the sample {twice} twice")
        return names


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Makes errors of readers name the file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: every sample needs it") from error
    except Exception as error:  # readers of foreign formats raise whatever their parsers meet
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}") from error


def read_npy(path: Path, *shapes: Sequence[int | None]) -> Tensor:
    """An array of numbers from a .npy file, as float32.

    Args:
        path: the file.
        shapes: the shapes it may have; None stands for any positive size.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken, holds no numbers or non-finite ones, or has another shape.
    """
    with reading(path), path.open("rb") as file:
        array = np.load(file, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} holds an archive of arrays, expected one array")
    return numbers(path, array, *shapes)


def numbers(path: Path, array: np.ndarray, *shapes: Sequence[int | None], finite: bool = True) -> Tensor:
    """An array read from a file, as float32.

    Raises:
        ValueError: naming the file: no numbers, a shape that is none of `shapes`, or with `finite` a value that is not.
    """
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path} holds {array.dtype}, expected numbers")
    if not any(_fits(array.shape, shape) for shape in shapes):
        expected = " or ".join(str(["any" if size is None else size for size in shape]) for shape in shapes)
        raise ValueError(f"{path} has shape {list(array.shape)}, expected {expected}")
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if finite and not bool(values.isfinite().all()):
        raise ValueError(f"{path} holds NaN or infinite values, expected finite ones")
    return values


def labels(path: Path, values: Tensor, classes: int, ignore: int) -> Tensor:
    """Class numbers read from a file, as int64.

    Raises:
        ValueError: naming the file and the value: not a whole number, or neither `ignore` nor in 0 .. classes - 1.
    """
    whole = values.long()
    wrong = (whole != values) | ((whole != ignore) & ((whole < 0) | (whole >= classes)))
    if bool(wrong.any()):
        found = values[wrong][0].item()
        raise ValueError(f"{path} holds the label {found:g}, expected 0 .. {classes - 1}, or {ignore} for no label")
    return whole


def within(path: Path, values: Tensor, low: float, high: float) -> Tensor:
    """Values read from a file, once they are known to lie between two numbers, give or take 0.01 for roundings.

    Raises:
        ValueError: naming the file and the values' range.
    """
    least, most = float(values.min()), float(values.max())
    if least < low - 0.01 or most > high + 0.01:
        raise ValueError(f"{path} holds values from {least:g} to {most:g}, expected them in [{low:g}, {high:g}]")
    return values


def same_size(image: Tensor, targets: dict[str, Tensor], where: str) -> None:
    """Checks that dense targets are as large as their image.

    Raises:
        ValueError: naming where the sample lies, the target and both sizes.
    """
    for name, target in targets.items():
        if target.shape[-2:] != image.shape[-2:]:
            raise ValueError(
                f"{where}: {name} has {list(target.shape[-2:])} pixels, the image {list(image.shape[-2:])}; "
                "expected the same height and width"
            )


def read_image(path: Path) -> Tensor:
    """An image file in color, [3, H, W] float32 from 0 to 255.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken.
    """
    pixels = _pixels(path, lambda image: image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def read_pixels(path: Path) -> np.ndarray:
    """The numbers [H, W] in an image file with one channel: grey values, or indices into its palette.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken or has several channels.
    """
    pixels = _pixels(path, lambda image: image)
    if pixels.ndim != 2:
        raise ValueError(f"{path} has {pixels.shape[-1]} channels, expected one number per pixel")
    return pixels.astype(np.int64)


def read_npz(path: Path, *names: str | tuple[str, ...]) -> list[np.ndarray]:
    """Arrays from a .npz file, in the order of `names`; several names are alternatives.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken, or one of the arrays is not in it.
    """
    with reading(path), path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it holds one array, expected an archive of named ones")
        found = []
        for choices in ((name,) if isinstance(name, str) else name for name in names):
            name = next((choice for choice in choices if choice in arrays), None)
            if name is None:
                raise ValueError(f"it holds no {' or '.join(choices)}, only {', '.join(arrays)}")
            found.append(arrays[name])
        return found


def read_mat(path: Path, name: str) -> Any:
    """One variable of a MATLAB file, as scipy gives it.

    Raises:
        FileNotFoundError: no such file.
        ImportError: scipy is not installed.
        ValueError: the file is broken or does not hold the variable.
    """
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError('MATLAB files need scipy: pip install "mtl_ext[eval]"') from error
    with reading(path), path.open("rb") as file:
        variables = loadmat(file, variable_names=[name])
    if name not in variables:
        raise ValueError(f"{path} does not hold the variable {name}")
    return variables[name]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is broken.
    """
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def _pixels(path: Path, convert: Callable[[Any], Any]) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('image files need Pillow: pip install "mtl_ext[train]"') from error
    with reading(path), Image.open(path) as image:
        return np.array(convert(image))


def _fits(shape: tuple[int, ...], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(
        size > 0 and want in (None, size) for size, want in zip(shape, expected, strict=True)
    )
