"""Estimates how many jobs of each kind wait in a queue, from some of their messages. Changes nothing."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from arqonce.connection.clock import read_clock
from arqonce.wire.bounds import is_name
from arqonce.wire.keys import JOB_KEY, aside_key

MOST_READ = 500
"""Most messages of a queue that are looked at."""

_SPOTS = 10
"""Places of the queue, at equal distances, from which they are taken: jobs enqueued together are of one kind."""

_HEAD = 256
"""Bytes of a message that are read. All clients write the job's name near its beginning."""

_NAME = re.compile(rb'\s*\{\s*(?:"t"\s*:\s*(?:null|[0-9]+)\s*,\s*)?"f"\s*:\s*("(?:[^"\\]|\\.){1,150}")')
"""The beginning of a message as arq's producers and ours write it, with the name."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,"]')
"""A text, or what stands between texts; a quotation mark alone begins a text that the head does not have as a whole."""

OTHER = "other"
"""Stands for jobs whose kind cannot be seen, and for the rarest of many kinds."""

_MOST_KINDS = 20
"""So many kinds are named: hostile producers may write any number of names."""


@dataclass(frozen=True)
class Kinds:
    """The waiting jobs of a queue by kind, the most frequent first."""

    waiting: Mapping[str, int]
    read: int
    of: int
    """How many jobs were due, running ones of plain arq workers included."""

    @property
    def is_estimate(self) -> bool:
        """Whether not all messages were read."""
        return self.read < self.of


async def read_kinds(redis: Redis, queue: str) -> Kinds:
    """Look at up to ``MOST_READ`` of the jobs that are due. Four round trips, and at most 128 KiB."""
    due = await redis.zcount(queue, "-inf", (await read_clock(redis)).ms)
    if due == 0:
        return Kinds({}, 0, 0)
    async with redis.pipeline(transaction=False) as pipe:
        for first, last in _ranges(due):
            pipe.zrange(queue, first, last)
        ids = list(chain.from_iterable(await pipe.execute()))
    names = await read_names(redis, ids)
    counts = Counter(names)
    scale = 1 if len(names) >= due or not names else due / len(names)
    named = [(kind, number) for kind, number in counts.most_common() if kind != OTHER][:_MOST_KINDS]
    if rest := len(names) - sum(number for _, number in named):
        named.append((OTHER, rest))
    return Kinds({kind: round(number * scale) for kind, number in named}, len(names), due)


async def read_names(redis: Redis, ids: Sequence[bytes]) -> list[str]:
    """Return the names of these jobs, from the beginnings of their messages; ``OTHER`` if it cannot be seen there.

    One round trip.

    Raises:
        RedisError: Redis cannot be asked, or this user may not look.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for job_id in ids:
            pipe.getrange(JOB_KEY.encode() + job_id, 0, _HEAD - 1)
        heads = await pipe.execute(raise_on_error=False)
    denied = next((head for head in heads if isinstance(head, NoPermissionError)), None)
    if denied is not None:
        raise denied
    return [_kind_of(head) for head in heads]


async def oldest_jobs(redis: Redis, queue: str, kind: str | None, *, limit: int) -> list[str]:
    """Return ids of jobs that are due, the oldest first; of one kind those among the oldest ``MOST_READ``.

    Three round trips.
    """
    now, most = (await read_clock(redis)).ms, MOST_READ if kind else limit
    ids: list[bytes] = await redis.zrange(queue, "-inf", now, byscore=True, offset=0, num=most)  # type: ignore[arg-type] # scores
    if kind is not None and ids:
        names = await read_names(redis, ids)
        ids = [job_id for job_id, name in zip(ids, names, strict=True) if name == kind]
    return [job_id.decode(errors="replace") for job_id in ids[:limit]]


async def held_jobs(redis: Redis, queue: str, kind: str, *, limit: int) -> tuple[int, list[str]]:
    """Return how many jobs of a paused kind workers have put aside, and ids of the first of them. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zcard(aside_key(queue, kind))
        pipe.zrange(aside_key(queue, kind), 0, limit - 1)
        count, ids = await pipe.execute()
    return int(count), [job_id.decode(errors="replace") for job_id in ids]


def _ranges(due: int) -> list[tuple[int, int]]:
    """Return the ranks to read, first and last of each range."""
    if due <= MOST_READ:
        return [(0, due - 1)]
    width = MOST_READ // _SPOTS
    return [(first := spot * (due - width) // (_SPOTS - 1), first + width - 1) for spot in range(_SPOTS)]


def _kind_of(head: object) -> str:
    found = _name_in(head) if isinstance(head, bytes) else None
    if found is None:
        return OTHER
    try:
        name = str(json.loads(found))
    except ValueError:
        return OTHER
    return name if is_name(name) else OTHER


def _name_in(head: bytes) -> bytes | None:
    """Return the value of the message's own field ``f``. Fields of payloads may have the same name, and come first."""
    if (usual := _NAME.match(head)) is not None:
        return usual[1]
    depth, before = 0, (b"", b"", b"")
    for token in _TOKEN.findall(head):
        if token == b'"':
            return None
        if depth == 1 and before[1:] == (b'"f"', b":") and before[0] in {b"{", b","} and token.startswith(b'"'):
            return bytes(token)
        depth += (token in {b"{", b"["}) - (token in {b"}", b"]"})
        before = (*before[1:], token)
    return None
