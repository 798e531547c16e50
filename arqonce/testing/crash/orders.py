"""Orders to the template. They are sent as pickles. Imports nothing at run time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arqonce.settings.worker import Settings
    from arqonce.spec import Registry


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the workers of one proof share. Sent as a pickle, so that everything in it is found by its name."""

    registry: "Registry"
    prepare: Callable[[], None] | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """The order to start a worker. It dies at the point ``crash_at``, or reports all points (""), or none (None).

    One that ``stands_by`` claims nothing until it is told to.
    """

    fork: int
    work: bytes
    modules: dict[str, str]
    settings: "Settings"
    crash_at: str | None
    directory: Path
    log: Path
    stands_by: bool = False


@dataclass(frozen=True)
class Tell:
    """The order to send a signal to a worker: SIGKILL, or ``QUIET`` or ``WORK`` of ``points``."""

    fork: int
    signal: int


@dataclass(frozen=True, kw_only=True)
class Program:
    """The order to run ``python -m module`` as if freshly started. ``loads`` names modules to load before the fork."""

    fork: int
    module: str
    loads: tuple[str, ...]
    arguments: tuple[str, ...]
    warnings: tuple[str, ...]
    environment: dict[str, str]
    directory: Path
    output: Path
    errors: Path
