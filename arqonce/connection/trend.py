"""The trend of queues: one short text for each queue and minute, which workers write and the page's charts read.

``arqonce:trend:<minute>:<queue>`` is a JSON list of numbers; the minute is one of Redis' clock, counted from 1970.
Each text expires after 25 hours, so a queue has at most 1,500 of them: 500 KB. A worker calls one script every 15 s,
for all its queues; one of them also measures each queue once a minute. Workers of arq's own class are not counted.

A call whose answer is lost may be counted twice: these numbers are for charts, the ledger has the exact ones.
"""

import json
import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from redis.asyncio import Redis

from arqonce.connection.queue_status import QueueStatus
from arqonce.wire.keys import to_ms

WRITTEN_EVERY = timedelta(seconds=15)

KEPT = timedelta(hours=25)

BOUNDS_MS = (5.0, 20.0, 100.0, 500.0, 2_000.0, 10_000.0, 60_000.0, 600_000.0)
"""Upper bounds of the buckets of a time, without the infinite one. Coarse: a percentile drawn from them is rough."""

_WIDTH = len(BOUNDS_MS) + 2
"""Numbers of a histogram: one for each bucket, then the sum."""

SUCCEEDED, FAILED, REFUSED, DEAD, WAIT = range(5)
"""Places of the numbers of a minute; the histogram of waiting begins at the last one."""

RUN = WAIT + _WIDTH
"""Where the histogram of run times begins."""

_GAUGES = RUN + _WIDTH
"""Where the gauges begin: waiting and held jobs, and for how many ms the oldest has waited."""

_LONGEST_MS = float(to_ms(timedelta(days=999_999_999)))

Numbers: TypeAlias = list[float]
"""What a worker has counted of a queue since it wrote last."""

_WRITE = """
local kept, gauges = ARGV[1], tonumber(ARGV[2])
local minute = math.floor(redis.call('TIME')[1] / 60)

local function write(queue, added)
    local key = 'arqonce:trend:' .. minute .. ':' .. queue
    local known = redis.pcall('GET', key)
    local is_read, numbers = pcall(cjson.decode, known)
    if not is_read or type(numbers) ~= 'table' or #numbers ~= gauges + 3 then  -- nothing, or another release's form
        numbers = {}
        for at = 1, gauges + 3 do numbers[at] = at > gauges and -1 or 0 end
    end
    local has_counted = #added > gauges
    for at = 1, gauges do
        if added[at] ~= 0 then has_counted, numbers[at] = true, numbers[at] + added[at] end
    end
    for at = gauges + 1, #added do numbers[at] = added[at] end
    local is_due = numbers[gauges + 1] == -1  -- nobody has measured the queue in this minute
    if is_due then numbers[gauges + 1] = -2 end
    if is_due or has_counted then redis.call('SET', key, cjson.encode(numbers), 'PX', kept) end
    return is_due and 1 or 0
end

local due = {}
for at = 3, #ARGV, 2 do due[#due + 1] = write(ARGV[at], cjson.decode(ARGV[at + 1])) end
return due
"""
"""Add numbers to the present minute of each queue; return whether the caller is to measure it: the first one is."""


def nothing_counted() -> Numbers:
    """Return zeros."""
    return [0.0] * _GAUGES


def count_time(numbers: Numbers, first: int, duration_ms: float) -> None:
    """Add a time to the histogram that begins at ``first``."""
    numbers[first + bisect_left(BOUNDS_MS, duration_ms)] += 1
    numbers[first + _WIDTH - 1] += duration_ms


def count_since(numbers: Numbers, first: int, times_ms: Sequence[float], now_ms: float) -> None:
    """Add the times from each of ``times_ms``, which are ascending, until now. Costs hardly more for many than for few.

    A time that is yet to come, by another clock, counts as 0.
    """
    left = len(times_ms)
    for at, bound in enumerate(BOUNDS_MS):
        later = bisect_left(times_ms, now_ms - bound, 0, left)  # those before it lie back further
        numbers[first + at] += left - later
        left = later
        if not left:
            break
    numbers[first + len(BOUNDS_MS)] += left
    passed = bisect_left(times_ms, now_ms)
    numbers[first + _WIDTH - 1] += max(0.0, passed * now_ms - sum(times_ms[:passed]))


async def write_counts(redis: Redis, counted: Mapping[str, Numbers]) -> list[str]:
    """Add what was counted, by queue; return the queues that are to be measured now. One round trip."""
    return await _write(redis, counted)


async def write_gauges(redis: Redis, measured: Mapping[str, QueueStatus]) -> None:
    """Write how many jobs of each queue wait, are held, and how long the oldest has waited. One round trip."""
    none = nothing_counted()
    await _write(redis, {queue: [*none, *_gauges(status)] for queue, status in measured.items()})


def _gauges(status: QueueStatus) -> Iterator[float]:
    oldest = 0 if status.oldest_waiting is None else to_ms(status.oldest_waiting)
    yield from (status.waiting, status.held, oldest)


async def _write(redis: Redis, numbers: Mapping[str, Numbers]) -> list[str]:
    pairs = [text for queue, added in numbers.items() for text in (queue, json.dumps(added))]
    due = await redis.register_script(_WRITE)(args=[to_ms(KEPT), _GAUGES, *pairs])
    return [queue for queue, is_due in zip(numbers, due, strict=True) if is_due]


@dataclass(frozen=True)
class Times:
    """A histogram of durations."""

    buckets: Sequence[float]
    """How many are in each: one number for each of ``BOUNDS_MS``, and one for those above."""

    @property
    def number(self) -> int:
        """How many there are."""
        return int(sum(self.buckets))

    def quantile(self, share: float) -> timedelta | None:
        """Return the duration that this share of all did not exceed, interpolated in its bucket; ``None`` of none.

        Of those above the last bound nothing is known but that.
        """
        if not self.number:
            return None
        wanted = share * self.number
        sums = list(accumulate(self.buckets))
        at = min(bisect_left(sums, wanted), len(BOUNDS_MS) - 1)
        lower = BOUNDS_MS[at - 1] if at else 0.0
        before = sums[at - 1] if at else 0.0
        part = min(1.0, (wanted - before) / self.buckets[at]) if self.buckets[at] else 1.0
        return timedelta(milliseconds=lower + part * (BOUNDS_MS[at] - lower))


class Gauges(NamedTuple):
    """A queue at one moment."""

    waiting: int
    held: int
    oldest: timedelta


@dataclass(frozen=True, kw_only=True)
class Part:
    """What happened in a queue in a part of time."""

    since: datetime
    succeeded: int
    failed: int
    """Attempts that failed, counted, and are repeated."""

    refused: int
    dead: int
    wait: Times
    """From when a job was due until it was claimed, by the worker's clock."""

    run: Times
    """Of runs: a batch is one."""

    gauges: Gauges | None
    """``None`` if nobody has measured."""


async def read_trend(
    redis: Redis,
    queues: Sequence[str],
    *,
    length: timedelta,
    step: timedelta = timedelta(minutes=1),
    now: float | None = None,
) -> list[Part | None]:
    """Return the parts of so long until now of all queues together, the last one not over; ``None`` where nobody wrote.

    One round trip. ``step`` is a number of whole minutes, and parts begin at multiples of it; ``now`` is in seconds
    since 1970. A part has the worst minute of each gauge.
    """
    width, last = step // timedelta(minutes=1), int((time.time() if now is None else now) // 60)
    first = (last // width - length // step + 1) * width
    minutes = range(first, first + length // step * width)
    found = await redis.mget([f"arqonce:trend:{minute}:{queue}" for minute in minutes for queue in queues])
    each = list(map(_read, found))
    read = [_together(each[at : at + len(queues)]) for at in range(0, len(each), len(queues))]
    return [_part(minutes[at], read[at : at + width]) for at in range(0, len(minutes), width)]


def _read(text: bytes | None) -> Numbers | None:
    if text is None:
        return None
    try:
        numbers = json.loads(text)
        return numbers if len(numbers) == _GAUGES + len(Gauges._fields) and math.isfinite(sum(numbers)) else None
    except (ValueError, TypeError, OverflowError):
        return None


def _together(read: Sequence[Numbers | None]) -> Numbers | None:
    """Return one minute of several queues: the sums of their numbers, the oldest of their oldest."""
    found = [numbers for numbers in read if numbers is not None]
    if len(found) <= 1:
        return found[0] if found else None
    measured = [numbers for numbers in found if numbers[_GAUGES] >= 0]
    waiting, held, oldest = zip(*(numbers[_GAUGES:] for numbers in measured), strict=True) if measured else ((-1,),) * 3
    return [
        *map(sum, zip(*(numbers[:_GAUGES] for numbers in found), strict=True)),
        sum(waiting),
        sum(held),
        max(oldest),
    ]


def _part(minute: int, read: Sequence[Numbers | None]) -> Part | None:
    found = [numbers for numbers in read if numbers is not None]
    if not found:
        return None
    sums = [sum(column) for column in zip(*found, strict=True)]
    return Part(
        since=datetime.fromtimestamp(minute * 60, UTC),
        succeeded=int(sums[SUCCEEDED]),
        failed=int(sums[FAILED]),
        refused=int(sums[REFUSED]),
        dead=int(sums[DEAD]),
        wait=Times(sums[WAIT : RUN - 1]),
        run=Times(sums[RUN : _GAUGES - 1]),
        gauges=_worst(numbers[_GAUGES:] for numbers in found),
    )


def _worst(measured: Iterable[Numbers]) -> Gauges | None:
    """Return the most of each gauge: of ten minutes a chart shows the worst one."""
    found = [numbers for numbers in measured if numbers[0] >= 0]
    if not found:
        return None
    waiting, held, oldest = (max(column) for column in zip(*found, strict=True))
    return Gauges(int(waiting), int(held), timedelta(milliseconds=min(max(oldest, 0.0), _LONGEST_MS)))
