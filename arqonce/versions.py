"""Looks up versions of installed packages. Imports no other module."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str | None:
    """Return the version of an installed package; ``None`` for one that runs from a copy, as in the container."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
