"""Places in the code in a traceback or a thread's stack, and which of them is the handler's own line."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePath
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parents[1]
_STANDARD_LIBRARY = Path(os.__file__).resolve().parent
_INSTALLED = frozenset({"site-packages", "dist-packages"})

_ENTRY = str(_ROOT / "main.py")
"""Where a process begins. Frames outside of it belong to the application, but to no handler."""

_USED_BY_US = frozenset({"arq", "asyncpg", "pydantic", "pydantic_core", "redis", "sqlalchemy", "structlog", "uvloop"})
"""Packages that the worker itself calls."""


class Place(NamedTuple):
    """A line of code that runs or that has raised."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return the file with its folder, the line and the function."""
        return f"{'/'.join(PurePath(self.file).parts[-2:])}:{self.line} {self.function}"


def places_of_trace(trace: TracebackType | None) -> list[Place]:
    """Return the places of a traceback, innermost last."""
    return [Place(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in walk_tb(trace)]


def places_of_frame(frame: FrameType) -> list[Place]:
    """Return the places of a stack, innermost last."""
    stack = [Place(found.f_code.co_filename, line, found.f_code.co_name) for found, line in walk_stack(frame)]
    return stack[::-1]


def handlers_place(places: Sequence[Place]) -> Place | None:
    """Return the innermost place in the code of the handler's project; ``None`` if there is none.

    The project's code is neither the library's nor installed. If the project itself is installed, as in an image,
    return the place that the library has called.
    """
    entry = max((number for number, place in enumerate(places, start=1) if place.file == _ENTRY), default=0)
    places = places[entry:]
    if own := [place for place in places if _kind(place.file) == "own"]:
        return own[-1]
    kinds = [_kind(place.file) for place in places]
    called = max((number for number, kind in enumerate(kinds, start=1) if kind == "ours"), default=0)
    return places[called] if 0 < called < len(places) and kinds[called] == "installed" else None


def is_of_project(file: str) -> bool:
    """Return whether a file is the project's own: neither ours, nor installed, nor Python's."""
    return _kind(file) == "own"


@cache
def _kind(file: str) -> str:
    """Classify a file: ``own`` (the project's), ``ours`` (the library's), ``installed`` or ``other``."""
    path = PurePath(file)
    if not path.is_absolute():
        return "other"  # <frozen ...>, <string>
    if path.is_relative_to(_ROOT):
        return "other" if path.relative_to(_ROOT).parts[0] == "database" else "ours"
    if installed := [number for number, part in enumerate(path.parts) if part in _INSTALLED]:
        return "other" if _stem(path.parts[installed[-1] + 1 :]) in _USED_BY_US else "installed"
    return "other" if path.is_relative_to(_STANDARD_LIBRARY) else "own"


def _stem(parts: Sequence[str]) -> str:
    return parts[0].removesuffix(".py") if parts else ""
