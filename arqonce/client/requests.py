"""Builds what a producer sends to Redis, the same for every kind of client. Knows no connection."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, TypeVar, cast

from pydantic import BaseModel

from arqonce.client.answers import JobInfo
from arqonce.failures import InvalidMessageError
from arqonce.payloads import Payload
from arqonce.wire.codec import encode
from arqonce.wire.keys import (
    EXPIRY,
    JOB_KEY,
    cut_calls,
    due_ms,
    job_message,
    new_job_id,
    now_ms,
    payload_tag,
    request_mark,
    require_payload,
    to_ms,
)

ResultT = TypeVar("ResultT", bound=BaseModel)

ENQUEUE = """
local queue, due, expiry = KEYS[#KEYS], ARGV[1], ARGV[2]
local added, queued = {}, {}
if string.sub(KEYS[1], 1, 8) ~= 'arq:job:' or #KEYS < 2 then
    return redis.error_reply('ERR the keys must be arq:job:<id> of each job, and last the queue')
end
redis.call('ZSCORE', queue, '')  -- fails before anything is written, if it is no queue
for job = 1, #KEYS - 1 do
    local key = KEYS[job]
    local id = string.sub(key, 9)  -- behind arq:job:
    if redis.call('EXISTS', key, 'arq:result:' .. id) > 0 then added[job] = 0
    else
        redis.call('SET', key, ARGV[2 + job], 'PX', expiry)
        added[job] = 1
        queued[#queued + 1] = due
        queued[#queued + 1] = id
    end
end
if #queued > 0 then redis.call('ZADD', queue, unpack(queued)) end
return added
"""
"""What arq does with WATCH and MULTI in three round trips for each job, in one for all: it cannot lose a race and
answer ``None``. Keys are those of the jobs, and the queue; arguments when they are due, how long they are kept, and
their messages. Answers for each whether it was added."""

ABORTED_SCORE = 1
"""The score to which arq's ``Job.abort`` sets a job that waits, so that a worker ends it at once and not when it would
have been due. One that runs keeps its own, which is its lease."""


_KEEP_ABORT = timedelta(days=366)
"""How long a request to abort a job stands that is promised and that Redis does not have yet. Of others the workers
forget after a minute those whose job there is not (``arqonce.engine.leases``)."""


def abort_ms(info: JobInfo) -> int:
    """Return the score of a request to abort: when it is made, or until when it stands at least."""
    return now_ms() + (0 if info.can_be_aborted else to_ms(_KEEP_ABORT))


class Enqueued(StrEnum):
    """What became of a request to enqueue."""

    NEW = "new"
    """The job is queued now."""

    DUPLICATE = "duplicate"
    """A job with this key is queued or running, or its result is kept: nothing was added. See the README's table."""


@dataclass(frozen=True)
class Call:
    """One call of a script."""

    keys: list[str]
    arguments: list[str | bytes | int]


@dataclass(frozen=True)
class Request(Generic[ResultT]):
    """Jobs to be enqueued together."""

    payloads: list[Payload[ResultT]]
    ids: list[str]
    messages: list[bytes]
    now_ms: int
    due_ms: int

    @classmethod
    def of(
        cls,
        payloads: Iterable[Payload[ResultT]],
        keys: Sequence[str | None] | None = None,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> "Request[ResultT]":
        """Check and encode everything.

        Raises:
            InvalidMessageError: a payload, key, time or size is wrong.
        """
        if isinstance(cast("object", payloads), Payload):  # which is iterable, too
            raise InvalidMessageError("enqueue_many takes a list of payloads; for one there is enqueue")
        payloads = list(payloads)
        if keys is not None and len(keys) != len(payloads):
            message = f"there are {len(payloads)} payloads and {len(keys)} keys: give one key for each"
            raise InvalidMessageError(message)
        now = now_ms()
        due = due_ms(now, delay, at)
        ids = [new_job_id(key) for key in (keys or itertools.repeat(None, len(payloads)))]
        for payload in payloads:
            require_payload(payload)
        messages = [encode(job_message(payload, enqueued_ms=now)) for payload in payloads]
        return cls(payloads, ids, messages, now, due)

    def calls(self, queue: str) -> Iterator[Call]:
        """Yield the calls of ``ENQUEUE`` that enqueue them; each is about 500 jobs or 4 MiB at most."""
        lifetime = max(0, self.due_ms - self.now_ms) + to_ms(EXPIRY)
        for part in cut_calls(list(map(len, self.messages))):
            keys = [JOB_KEY + job_id for job_id in self.ids[part]]
            yield Call([*keys, queue], [self.due_ms, lifetime, *self.messages[part]])

    def outcomes(self, added: Iterable[int]) -> Iterator[tuple[str, Enqueued, type[ResultT], str | None]]:
        """Yield for each job its id, what became of it, what it answers, and of a duplicate the request's mark."""
        for payload, job_id, is_new in zip(self.payloads, self.ids, added, strict=True):
            mark = None if is_new else request_mark(payload.job_name, payload_tag(payload))
            yield job_id, Enqueued.NEW if is_new else Enqueued.DUPLICATE, payload.result_type(), mark
