"""Files that are either complete or absent, and where disposable ones live."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file under a temporary name beside it and renames it when it is complete.

    Args:
        path: the file; its folder is created.
        write: receives the open binary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
        # mkstemp makes files private; results are meant to be read like any other file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def cache_folder() -> Path:
    """Folder for what can be computed again: ``$MTL_EXT_CACHE``, else ``~/.cache/mtl_ext``."""
    return Path(os.environ.get("MTL_EXT_CACHE") or Path.home() / ".cache" / "mtl_ext")
