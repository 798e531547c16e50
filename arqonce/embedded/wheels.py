"""Finds the servers' programs in their wheels, without importing the wheels' code."""

import importlib.util
import os
import sys
from pathlib import Path

from arqonce.embedded.errors import EmbeddedServerError


def find_program(package: str, path: str, *, instead: str) -> Path:
    """Return the program at ``path`` in the installed ``package``; ``instead`` is the cure without the package.

    Raises:
        EmbeddedServerError: the wheel is not installed, or it has no program for this platform.
    """
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    program = Path(folders[0], path) if folders else None
    if program is None or not program.is_file():
        lack = f"has no {path}" if program else "is not installed"
        raise EmbeddedServerError(
            f"The package {package} {lack} (this platform is {sys.platform} on {os.uname().machine}). "
            f"Cure: pip install 'arqonce[embedded]', or {instead}."
        )
    return program
