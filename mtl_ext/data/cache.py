"""Arrays that are slow to make and kept between runs."""

import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from mtl_ext.files import cache_folder, write_atomically


def cached_arrays(
    name: str,
    make: Callable[[], dict[str, np.ndarray]],
    check: Callable[[dict[str, np.ndarray]], object] = lambda arrays: None,
) -> dict[str, np.ndarray]:
    """The arrays of a file in :func:`mtl_ext.files.cache_folder`; what cannot be read is made and written anew.

    A folder that cannot be written costs a warning and the time to make the arrays each time.

    Args:
        name: of the file, without its ending; it holds whatever the arrays depend on.
        make: gives the arrays by name.
        check: raises ValueError or KeyError for arrays of a file that are not those of this name.
    """
    path = cache_folder() / f"{name}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
        check(found)
        return found
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        made = make()
    try:
        write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **made))
    except OSError as error:
        warnings.warn(f"{name} is made anew each time: {error}. Set MTL_EXT_CACHE to a folder", stacklevel=3)
    return made
