"""Places in the code, of an error or of a thread: which of them is the handler's own line."""

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

_MACHINERY = frozenset({"db", "embedded", "web", "worker"})
"""Our packages in which no handler lies."""

_USED_BY_HANDLERS = frozenset({
    "arguments", "client", "codec", "connection", "direct", "ending", "event_loop", "log_writer", "logs", "messages",
    "outbox", "primary", "redis_url", "registry", "results", "sentinel", "sync_client", "sync_direct", "sync_watching",
    "sync_wire", "testing", "tracking", "watching", "wire",
})  # fmt: skip
"""What else lies in ``jobs``, beside handlers."""

_USED_BY_US = frozenset({"arq", "asyncpg", "pydantic", "pydantic_core", "redis", "sqlalchemy", "structlog", "uvloop"})
"""What the worker calls by itself."""


class Place(NamedTuple):
    """A line that runs, or that has raised."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Name it without the folders around it."""
        return f"{'/'.join(PurePath(self.file).parts[-2:])}:{self.line} {self.function}"


def places_of_trace(trace: TracebackType | None) -> list[Place]:
    """Return where an error has come through, innermost last."""
    return [Place(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in walk_tb(trace)]


def places_of_frame(frame: FrameType) -> list[Place]:
    """Return where a thread is, innermost last."""
    stack = [Place(found.f_code.co_filename, line, found.f_code.co_name) for found, line in walk_stack(frame)]
    return stack[::-1]


def handlers_place(places: Sequence[Place]) -> Place | None:
    """Return the innermost place in the code of a handler and what it has of its own, ``None`` if there is none.

    That is code which is neither ours, but for ``jobs``, nor installed. If the handler itself is installed, as in an
    image, it is what the worker has called.
    """
    if own := [place for place in places if _kind(place.file) == "own"]:
        return own[-1]
    kinds = [_kind(place.file) for place in places]
    called = max((number for number, kind in enumerate(kinds, start=1) if kind == "ours"), default=0)
    return places[called] if 0 < called < len(places) and kinds[called] == "installed" else None


@cache
def _kind(file: str) -> str:
    """Tell ``own`` code from ``ours``, ``installed``, and ``other``."""
    path = PurePath(file)
    if not path.is_absolute():
        return "other"  # <frozen ...>, <string>
    package, *inner = path.relative_to(_ROOT).parts if path.is_relative_to(_ROOT) else ("", "")
    if package in _MACHINERY or (package == "jobs" and _stem(inner) in _USED_BY_HANDLERS):
        return "other" if package == "db" else "ours"
    if package == "jobs":
        return "own"
    if installed := [number for number, part in enumerate(path.parts) if part in _INSTALLED]:
        return "other" if _stem(path.parts[installed[-1] + 1 :]) in _USED_BY_US else "installed"
    return "other" if path.is_relative_to(_STANDARD_LIBRARY) else "own"


def _stem(parts: Sequence[str]) -> str:
    return parts[0].removesuffix(".py") if parts else ""
