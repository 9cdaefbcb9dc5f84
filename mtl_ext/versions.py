"""Versions of what numbers depend on."""

import platform

import numpy
import torch

import mtl_ext
from mtl_ext import ops


def versions() -> dict[str, str]:
    """Name -> version, for the files of results."""
    return {
        "mtl_ext": mtl_ext.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "kernels": "compiled" if ops.library else "none, PyTorch references",
        "machine": f"{platform.system()} {platform.machine()}",
    }
