"""Files of arrays, written completely or not at all."""

from pathlib import Path

import numpy as np

from mtl_ext.files import write_atomically


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array in numpy's own format."""
    write_atomically(path, lambda file: np.save(file, array, allow_pickle=False))
