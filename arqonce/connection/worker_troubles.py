"""Says what is wrong with workers, by what they have said of themselves in Redis. Asks no server."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from arqonce.connection.clock import CLOCK_OFF
from arqonce.connection.presence import LiveWorker
from arqonce.wire.bounds import is_name

CLOCKS, LOOPS = "clocks", "event loops"

_MOST_OFF = 1e10
"""What differs by more, in seconds, was no reading of a clock."""

_LONGEST = 300
"""Longest text that is shown of what a worker says, in characters."""


class Trouble(NamedTuple):
    """One thing that is wrong, with its cure. The text is the same each time, while nothing changes."""

    check: str
    """``CLOCKS`` or ``LOOPS``."""

    what: str
    cure: str


def troubles_of(seen: Iterable[tuple[LiveWorker, Mapping[str, Any] | None]]) -> list[Trouble]:
    """Return what is wrong with the workers: a clock once for each host, a block once for each place in the code."""
    found: dict[tuple[str, str], Trouble] = {}
    for worker, doing in seen:
        for place, trouble in _of(worker, doing or {}):
            found.setdefault((worker.host, place), trouble)
    return list(found.values())


def _of(worker: LiveWorker, doing: Mapping[str, Any]) -> Iterator[tuple[str, Trouble]]:
    offset, host = doing.get("clock_offset"), worker.host if _is_text(worker.host) else "a host without a readable name"
    if isinstance(offset, int | float) and CLOCK_OFF.total_seconds() < abs(offset) < _MOST_OFF:
        how = f"{timedelta(seconds=round(abs(offset)))} {'behind' if offset > 0 else 'ahead of'}"
        cure = "let NTP set it; what this host enqueues for later is due at a wrong time"
        yield CLOCKS, Trouble(CLOCKS, f"the clock of {host} is {how} that of Redis", cure)
    block = doing.get("block")
    if isinstance(block, dict) and _is_text(block.get("at")):
        at, name = str(block["at"]), block.get("job_name")
        who = name if is_name(name) else "something"
        cure = "await an async library there, or use asyncio.to_thread: meanwhile the worker's other jobs wait"
        what = f"{who} has blocked the event loop of workers on {host} in the last two minutes, at {at}"
        yield at, Trouble(LOOPS, what, cure)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST
