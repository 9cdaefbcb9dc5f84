"""Which TorchJD this adapter fits. Importing this module checks it."""

from importlib import metadata

FITS = "0.18."


def check_version(found: str | None) -> None:
    """Refuses a TorchJD whose insides are not known.

    Args:
        found: the installed version, None without one.

    Raises:
        ImportError: naming the extra that installs the right one.
    """
    if found is None or not found.startswith(FITS):
        state = "is not installed" if found is None else f"is installed in version {found}"
        raise ImportError(
            f"mtl_ext.adapters.torchjd works with TorchJD {FITS}x, which {state}: "
            "pip install --no-build-isolation 'mtl_ext[torchjd]'"
        )


def installed_version() -> str | None:
    """Version of the installed TorchJD, None without one."""
    try:
        return metadata.version("torchjd")
    except metadata.PackageNotFoundError:
        return None


check_version(installed_version())
