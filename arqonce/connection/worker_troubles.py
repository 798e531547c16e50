"""Says what is wrong with workers, by what they have said of themselves in Redis. Asks no server."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from arqonce.connection.clock import CLOCK_OFF
from arqonce.connection.presence import LiveWorker
from arqonce.wire.bounds import is_name

CLOCKS, DATABASES, LOOPS = "clocks", "databases", "event loops"

_MOST_OFF = 1e10
"""What differs by more, in seconds, was no reading of a clock."""

_LONGEST = 300
"""Longest text that is shown of what a worker says, in characters."""

_MOST_HOSTS = 3
"""Hosts that are named of one trouble: where each worker has a container, each is a host."""


class Trouble(NamedTuple):
    """One thing that is wrong, with its cure. The text is the same each time, while nothing changes."""

    check: str
    """``CLOCKS``, ``DATABASES`` or ``LOOPS``."""

    what: str
    cure: str


class Block(NamedTuple):
    """Who has blocked event loops at one place in the code, and on which hosts."""

    who: str
    hosts: dict[str, None]


def troubles_of(seen: Iterable[tuple[LiveWorker, Mapping[str, Any] | None]]) -> list[Trouble]:
    """Return what is wrong with the workers: a clock once for each host, a block once for each place in the code.

    Also, once, that workers of the same queue have different databases; of several such queues the first is named.
    """
    clocks: dict[str, Trouble] = {}
    blocks: dict[str, Block] = {}
    hosts_of: dict[str, dict[str, str]] = {}
    for worker, doing in seen:
        host = worker.host if _is_text(worker.host) else "a host without a readable name"
        if _is_text(database := (doing or {}).get("database")):
            for queue in worker.queues:
                hosts_of.setdefault(queue, {}).setdefault(str(database), host)
        for trouble in _clock(host, doing or {}):
            clocks.setdefault(host, trouble)
        for at, who in _block(doing or {}):
            blocks.setdefault(at, Block(who, {})).hosts[host] = None
    return [*clocks.values(), *_split(hosts_of), *(_blocked(at, *block) for at, block in blocks.items())]


def _split(hosts_of: Mapping[str, Mapping[str, str]]) -> Iterator[Trouble]:
    """Yield the queues whose workers have several databases; ``hosts_of`` names a host for each database of each."""
    split = {queue: list(hosts.values()) for queue, hosts in sorted(hosts_of.items()) if len(hosts) > 1}
    if not split:
        return
    queue, hosts = next(iter(split.items()))
    more = len(split) - 1
    others = f" (and {more:,} other queue{'s' if more > 1 else ''})" if more else ""
    what = f"workers of the queue {queue}{others} have {len(hosts):,} databases, such as those on {_named(hosts)}"
    cure = "correct a DATABASE_URL or REDIS_URL, or give each database a queue of its own: each job runs in any of them"
    yield Trouble(DATABASES, what, cure)


def _clock(host: str, doing: Mapping[str, Any]) -> Iterator[Trouble]:
    offset = doing.get("clock_offset")
    if isinstance(offset, int | float) and CLOCK_OFF.total_seconds() < abs(offset) < _MOST_OFF:
        how = f"{timedelta(seconds=round(abs(offset)))} {'behind' if offset > 0 else 'ahead of'}"
        cure = "let NTP set it; what this host enqueues for later is due at a wrong time"
        yield Trouble(CLOCKS, f"the clock of {host} is {how} that of Redis", cure)


def _block(doing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    block = doing.get("block")
    if isinstance(block, dict) and _is_text(block.get("at")):
        name = block.get("job_name")
        yield str(block["at"]), str(name) if is_name(name) else "something"


def _blocked(at: str, who: str, hosts: Collection[str]) -> Trouble:
    cure = "await an async library there, or use asyncio.to_thread: meanwhile the worker's other jobs wait"
    what = f"{who} has blocked the event loop of workers on {_named(hosts)} in the last two minutes, at {at}"
    return Trouble(LOOPS, what, cure)


def _named(hosts: Collection[str]) -> str:
    named = ", ".join(sorted(hosts)[:_MOST_HOSTS])
    others = len(hosts) - _MOST_HOSTS
    return named if others <= 0 else f"{named} and {others:,} other host{'s' if others > 1 else ''}"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST
