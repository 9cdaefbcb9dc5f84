"""Files of arrays and images, written completely or not at all."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtl_ext.files import write_atomically

MAT_TEXT = 116
FORMATS = {".png": "PNG", ".tif": "TIFF", ".jpg": "JPEG"}


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array in numpy's own format."""
    write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays, compressed."""
    named: dict[str, Any] = dict(arrays)
    write_atomically(path, lambda file: np.savez_compressed(file, **named))


def write_image(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    """Writes pixels [H, W] (uint8, uint16 or int32) or [H, W, 3] (uint8) in the format of the file's ending.

    Args:
        path: the file: .png, .tif or .jpg.
        pixels: the image.
        palette: whether uint8 pixels [H, W] are indices into a palette of colors, made here.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError('image files need Pillow: pip install "mtl_ext[train]"') from error
    image = Image.fromarray(pixels)
    if palette:
        # 0 is black, neighbouring indices differ clearly.
        image.putpalette((np.arange(256)[:, None] * np.array([97, 57, 151]) % 256).astype(np.uint8).tobytes())
    options: dict[str, Any] = {"quality": 95} if path.suffix == ".jpg" else {}
    write_atomically(path, lambda file: image.save(file, FORMATS[path.suffix], **options))


def write_mat(path: Path, variables: Mapping[str, Any]) -> None:
    """Writes variables in MATLAB's format of version 5.

    Raises:
        ImportError: scipy is not installed.
    """
    try:
        from scipy.io import savemat
    except ImportError as error:
        raise ImportError('MATLAB files need scipy: pip install "mtl_ext[eval]"') from error
    content = io.BytesIO()
    savemat(content, dict(variables), do_compression=True)
    # The free text that a file begins with holds the time; without it, equal variables give equal files.
    content.getbuffer()[:MAT_TEXT] = b"MATLAB 5.0 MAT-file".ljust(MAT_TEXT)
    write_atomically(path, lambda file: file.write(content.getvalue()))


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1 as uint8 from 0 to 255."""
    return np.rint(255.0 * values).clip(0, 255).astype(np.uint8)


def cleared(values: np.ndarray, edges: np.ndarray, mark: float) -> np.ndarray:
    """A copy of the values [H, W] or [H, W, C] with the mark for no label on edges [H, W]."""
    marked = values.copy()
    marked[edges] = mark
    return marked
