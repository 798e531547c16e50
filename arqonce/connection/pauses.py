"""What is paused, as workers read it in Redis: a copy of what is recorded in PostgreSQL (``ledger.pauses``).

It is written by the commands of operators and, again, by relays, since Redis may be emptied. Whoever writes has read
the key first, then PostgreSQL, and writes only if the key is still the same: so nobody overwrites what is newer. Each
text is another one, also if it says the same.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import TypeAlias

from redis.asyncio import Redis

from arqonce.wire.keys import PAUSED_MS, aside_key, pauses_key

FOR_EVER = -1
"""In place of a time, in ms since 1970: until somebody resumes it."""

_MARK = 16
"""Characters before the JSON."""

_STEP = 500
"""Most jobs that return in one call of a script: some 2 ms."""

_CHANGE = """
local current = redis.pcall('GET', KEYS[1])
if type(current) == 'table' then current = false end  -- an error: it is of another type
if (current or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""Replace what is said of a queue if it is what the caller has read (empty: nothing); return whether it was."""

_RETURN = """
local aside, queue, paused = KEYS[1], ARGV[3], tonumber(ARGV[2])  -- no key: a relay's user may not read the queue
local found = redis.call('ZRANGE', aside, 0, ARGV[1] - 1, 'WITHSCORES')
for at = 1, #found, 2 do
    local id, score = found[at], found[at + 1]
    local current = tonumber(redis.call('ZSCORE', queue, id) or 0)
    if current >= paused and current < 2 * paused then  -- else it was aborted, or enqueued anew
        redis.call('ZADD', queue, 'XX', score, id)
    end
    redis.call('ZREM', aside, id)
end
return #found / 2
"""
"""Let up to so many of the jobs of a kind that were put aside be due again, those first that were due first; return how
many there were. Harmless at any time: what is paused is put aside again."""


def _is_in_force(till: int, now_ms: float) -> bool:
    return till == FOR_EVER or till > now_ms


@dataclass(frozen=True)
class Paused:
    """What is paused of one queue, each until a time in ms since 1970, or ``FOR_EVER``."""

    till: int = 0
    """The whole queue; 0: it is not paused."""

    kinds: Mapping[str, int] = field(default_factory=dict)
    """By the name of the job."""

    def is_whole(self, now_ms: float) -> bool:
        """Return whether the whole queue is paused."""
        return _is_in_force(self.till, now_ms)

    def active_kinds(self, now_ms: float) -> list[str]:
        """Return the names of paused kinds."""
        return sorted(name for name, till in self.kinds.items() if _is_in_force(till, now_ms))


@dataclass(frozen=True)
class _Known:
    """What Redis says of a queue."""

    text: bytes
    """As it stands there; empty if there is nothing."""

    paused: Paused | None
    """``None``: nothing is known."""

    over: Sequence[str]
    """Kinds whose jobs are to return: their pause has ended."""


Recorded: TypeAlias = Callable[[], Awaitable[Mapping[str, Paused]]]
"""Reads what is recorded in PostgreSQL, by queue; a queue that is not there is not paused."""


async def copy_pauses(redis: Redis, queues: Sequence[str], recorded: Recorded) -> bool:
    """Let Redis say what is recorded, and jobs return whose pause has ended; return whether it says so now.

    It does not if somebody else has changed it meanwhile: then do it again. One round trip to each server if nothing
    has changed, else two more for each queue, and one for each 500 jobs that return.
    """
    known = await _read(redis, queues)
    wanted = await recorded()
    done = True
    for queue in queues:
        done = await _copy(redis, queue, known[queue], wanted.get(queue, Paused())) and done
    return done


async def read_texts(redis: Redis, queues: Sequence[str]) -> list[object]:
    """Return what Redis says of each queue, as it stands there: another text after each change. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for queue in queues:
            pipe.get(pauses_key(queue))
        return list(await pipe.execute(raise_on_error=False))


async def _read(redis: Redis, queues: Sequence[str]) -> dict[str, _Known]:
    found = await read_texts(redis, queues)
    return {queue: known_of(answer) for queue, answer in zip(queues, found, strict=True)}


def known_of(answer: object) -> _Known:
    """Parse what GET has answered.

    Raises:
        Exception: the answer is one.
    """
    if isinstance(answer, Exception) and not str(answer).startswith("WRONGTYPE"):
        raise answer
    if not isinstance(answer, bytes):
        return _Known(b"", None, ())
    try:
        said = json.loads(answer[_MARK:] or b'{"till": 0, "kinds": {}, "over": []}')
        return _Known(answer, Paused(int(said["till"]), dict(said["kinds"])), list(said["over"]))
    except (ValueError, TypeError, KeyError):
        return _Known(answer, None, ())


async def _copy(redis: Redis, queue: str, known: _Known, wanted: Paused) -> bool:
    before = known.paused or Paused()
    over = sorted({*known.over, *before.kinds} - wanted.kinds.keys())
    if known.paused == wanted and not over:
        return True
    text = _write(wanted, over)
    if not await _change(redis, queue, known.text, text):
        return False
    if not over:
        return True
    for kind in over:
        await _return_jobs(redis, queue, kind)
    return await _change(redis, queue, text, _write(wanted, []))


def _write(paused: Paused, over: Sequence[str]) -> bytes:
    mark = token_hex(_MARK // 2)
    if not (paused.till or paused.kinds or over):
        return mark.encode()
    return (mark + json.dumps({"till": paused.till, "kinds": dict(paused.kinds), "over": list(over)})).encode()


async def _change(redis: Redis, queue: str, before: bytes, after: bytes) -> bool:
    script = redis.register_script(_CHANGE)
    return bool(await script(keys=[pauses_key(queue)], args=[before, after]))


async def _return_jobs(redis: Redis, queue: str, kind: str) -> None:
    script, key = redis.register_script(_RETURN), aside_key(queue, kind)
    left = int(await redis.zcard(key))
    while left > 0:  # not until there is none: it may be paused again, and more may be put aside
        left -= max(1, int(await script(keys=[key], args=[_STEP, PAUSED_MS, queue])))
