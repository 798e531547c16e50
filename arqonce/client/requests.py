"""Builds a producer's commands to Redis and the fields of its handles, for all clients. Knows no connection."""

import asyncio
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar, cast

from pydantic import BaseModel

from arqonce.client.answers import JobInfo, read_answer, read_info, was_aborted
from arqonce.failures import InvalidMessageError
from arqonce.payloads import Payload
from arqonce.running import RunningJob
from arqonce.tracing import UNTRACED, Sending
from arqonce.wire.keys import (
    ABORT_KEY,
    EXPIRY,
    IN_PROGRESS_KEY,
    JOB_KEY,
    RESULT_KEY,
    UNIQUE_KEY,
    cut_calls,
    new_job_ids,
    now_ms,
    require_job_id,
    to_ms,
)
from arqonce.wire.request import (
    payload_tag,
    request_mark,
    require_kind,
    require_payload,
    unique_name,
    write_job,
)
from arqonce.wire.status import JobStatus
from arqonce.wire.times import due_ms, expiry_ms, window_ms

_TURN = timedelta(milliseconds=20)
"""After so much validating and encoding other tasks have a turn: 100,000 jobs take some seconds."""

Command = tuple[str | float | bytes, ...]

ResultT = TypeVar("ResultT", bound=BaseModel)
StepsT = TypeVar("StepsT")

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
"""Enqueues many jobs in one round trip. arq uses WATCH and MULTI, with three round trips per job, and returns ``None``
if it loses a race. Keys: those of the jobs, then the queue. Arguments: the due time, the expiry in ms, the messages.
Returns for each job 1 if it was added, else 0."""

ENQUEUE_UNIQUE = """
local queue, due, expiry, window = KEYS[#KEYS], ARGV[1], ARGV[2], ARGV[3]
local ids, jobs = {}, (#KEYS - 1) / 2
redis.call('ZSCORE', queue, '')  -- fails before anything is written, if it is no queue
for job = 1, jobs do
    local unique, key = KEYS[jobs + job], KEYS[job]
    local id = redis.call('GET', unique)
    if not id then
        id = string.sub(key, 9)  -- behind arq:job:
        redis.call('SET', unique, id, 'PX', window)
        redis.call('SET', key, ARGV[3 + job], 'PX', expiry)
        redis.call('ZADD', queue, due, id)
    end
    ids[job] = id
end
return ids
"""
"""Enqueues each request unless an equal one was accepted within its time. Keys: those of the jobs, those of the
requests in the same order, then the queue. Arguments: the due time, the expiry in ms, how long the requests are unique
in ms, the messages. Returns the id of each request's job. A call that is repeated finds its own jobs."""

ABORTED_SCORE = 1
"""The score that arq's ``Job.abort`` gives a waiting job, so that a worker ends it at once and not at its due time. A
running job keeps its score, which is its lease."""


_KEEP_ABORT = timedelta(days=366)
"""How long an abort request is kept for a promised job that is not in Redis yet. Workers drop other requests after a
minute if the job does not exist (``arqonce.engine.leases``)."""


def look_commands(queue: str, job_id: str) -> tuple[Command, Command, Command]:
    """Return the commands that read a job's state; ``read_look`` parses the answers."""
    return ("ZSCORE", queue, job_id), ("EXISTS", IN_PROGRESS_KEY + job_id), ("GET", RESULT_KEY + job_id)


def read_look(job_id: str, answers: Sequence[Any]) -> JobInfo:
    """Parse the answers to ``look_commands``.

    Raises:
        InvalidMessageError: the result cannot be read.
    """
    score, running, data = answers
    return read_info(job_id, score=None if score is None else float(score), is_running=bool(running), data=data)


def abort_commands(queue: str, info: JobInfo, *, is_promised: bool) -> list[Command]:
    """Return the commands that request a job's abort; none if the job has ended or is unknown."""
    if not info.can_be_aborted and not is_promised:
        return []
    stands_until = now_ms() + (0 if info.can_be_aborted else to_ms(_KEEP_ABORT))
    commands: list[Command] = [("ZADD", ABORT_KEY, stands_until, info.job_id)]
    if info.status is not JobStatus.RUNNING:
        commands.append(("ZADD", queue, "XX", ABORTED_SCORE, info.job_id))
    return commands


@dataclass(frozen=True)
class Promised(Generic[ResultT]):
    """A job that is enqueued when its transaction commits. ``JobClient.handle`` returns a handle to wait with."""

    job_id: str
    is_new: bool
    """Whether this call promised the job; false if a job with this key is in the outbox, has a receipt or is dead."""

    result_type: type[ResultT] = field(repr=False)
    _mark: str | None = field(default=None, repr=False)
    """The request's mark; set if another request may have the same key in Redis."""


HandleFields: TypeAlias = tuple[str, bool, type[ResultT], bool, str | None]
"""The fields of ``Handle`` in their order."""


def found_again(
    job: Promised[ResultT] | type[Payload[ResultT]], job_id: str | None, *, is_promised: bool
) -> HandleFields[ResultT]:
    """Return the fields of a handle of a job that was promised or enqueued elsewhere.

    Raises:
        InvalidMessageError: the id is not valid, or the class is no payload.
    """
    if isinstance(job, Promised):
        return job.job_id, job.is_new, job.result_type, True, job._mark  # noqa: SLF001 - of this module
    require_kind(job)
    return require_job_id(cast("str", job_id)), False, job.result_type(), is_promised, None


@dataclass(frozen=True)
class Handle(Generic[ResultT]):
    """A job that was enqueued. The same for every kind of client."""

    job_id: str
    is_new: bool
    """Whether this call enqueued the job; false if a job with its key is queued or running, or its result is kept."""

    _result_type: type[ResultT] = field(repr=False)
    _is_promised: bool = field(default=False, repr=False)
    _mark: str | None = field(default=None, repr=False)
    """The request's mark; set if another request may have the same key."""

    def _read(self, data: bytes) -> ResultT:
        return read_answer(data, self.job_id, self._result_type, mark=self._mark)

    def _was_aborted(self, data: bytes) -> bool:
        return was_aborted(lambda: self._read(data))


@dataclass(frozen=True)
class Call:
    """One call of a script."""

    script: str
    keys: list[str]
    arguments: list[str | bytes | int]


def at_once(steps: Generator[None, None, StepsT]) -> StepsT:
    """Take all steps; return what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return cast("StepsT", done.value)


async def in_turns(steps: Generator[None, None, StepsT]) -> StepsT:
    """Take the steps; between them, from time to time, others have a turn."""
    since = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return cast("StepsT", done.value)
        if time.monotonic() - since > _TURN.total_seconds():
            await asyncio.sleep(0)
            since = time.monotonic()


@dataclass(frozen=True)
class Request(Generic[ResultT]):
    """Jobs to be enqueued together."""

    payloads: list[Payload[ResultT]]
    ids: list[str]
    messages: list[bytes]
    now_ms: int
    due_ms: int
    expires_ms: int | None = None
    window_ms: int | None = None

    @classmethod
    def steps(  # noqa: PLR0913 - the options of JobClient.enqueue
        cls,
        payloads: Iterable[Payload[ResultT]],
        keys: Sequence[str | None] | None = None,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        unique_for: timedelta | None = None,
        expires: timedelta | datetime | None = None,
        parent: RunningJob | None = None,
        sending: Sending = UNTRACED,
    ) -> "Generator[None, None, Request[ResultT]]":
        """Validate and encode all jobs, one in each step; they share their times. Follow-ups get ids from their job.

        Begins the span of ``sending``, whose trace context all messages get.

        Raises:
            InvalidMessageError: a payload, key, time or size is invalid.
        """
        if isinstance(cast("object", payloads), Payload):  # a model is iterable, too
            raise InvalidMessageError("enqueue_many takes a list of payloads; use enqueue for one payload")
        payloads = list(payloads)
        if isinstance(keys, str):  # each of its characters would be one
            raise InvalidMessageError("keys must be a list with a key for each payload; this is a str")
        if keys is not None and len(keys) != len(payloads):
            message = f"there are {len(payloads)} payloads and {len(keys)} keys: give one key for each"
            raise InvalidMessageError(message)
        now = now_ms()
        due = due_ms(now, delay, at)
        expiry = expiry_ms(now, due, expires)
        window = window_ms(now, unique_for, has_key=any(key is not None for key in keys or ()))
        for payload in payloads:
            require_payload(payload)
        keys = keys or [None] * len(payloads)
        if parent is not None:
            keys = [
                parent.next_id(one.job_name) if key is None else key for one, key in zip(payloads, keys, strict=True)
            ]
        ids = new_job_ids(keys)
        parent_id = None if parent is None else parent.job_id
        trace = sending.begin(payloads, ids)
        messages: list[bytes] = []
        for payload in payloads:
            messages.append(write_job(payload, enqueued_ms=now, expires_ms=expiry, parent=parent_id, trace=trace))
            yield
        return cls(payloads, ids, messages, now, due, expiry, window)

    def calls(self, queue: str) -> Iterator[Call]:
        """Yield the calls of a script, each of at most 500 jobs or about 4 MiB."""
        last = max(self.now_ms, self.due_ms, self.expires_ms or 0)  # the message of an expired job says so
        lifetime = last - self.now_ms + to_ms(EXPIRY)
        for part in cut_calls(list(map(len, self.messages))):
            keys = [JOB_KEY + job_id for job_id in self.ids[part]]
            if self.window_ms is None:
                yield Call(ENQUEUE, [*keys, queue], [self.due_ms, lifetime, *self.messages[part]])
                continue
            keys += [UNIQUE_KEY + unique_name(payload, queue).hex() for payload in self.payloads[part]]
            yield Call(ENQUEUE_UNIQUE, [*keys, queue], [self.due_ms, lifetime, self.window_ms, *self.messages[part]])

    def handled(self, answers: Iterable[int | bytes]) -> Iterator[HandleFields[ResultT]]:
        """Yield the fields of each job's handle. An answer says whether Redis added the job, or is the job's id."""
        for payload, own_id, answer in zip(self.payloads, self.ids, answers, strict=True):
            job_id = answer.decode() if isinstance(answer, bytes) else own_id
            is_new = job_id == own_id if isinstance(answer, bytes) else bool(answer)
            mark = None if is_new else request_mark(payload.job_name, payload_tag(payload))
            yield job_id, is_new, payload.result_type(), False, mark
