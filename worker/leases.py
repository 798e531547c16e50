"""Claims jobs, renews their leases and gives them up, many in one round trip. Knows nothing of what the jobs do."""

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.connection import without_retries
from jobs.wire import ABORT_KEY, EXPIRY, RETRY_KEY, is_hostile_id, leases_key, now_ms, printable_job_id, to_ms
from worker import lease_scripts

_KEEP_ATTEMPTS = timedelta(days=1)
"""How long attempts are remembered of a job that does not come back (arq's number)."""

_LOOKS = 1000
"""How many jobs that other classes of workers run are passed over in one claim."""

_KEEP_ABORTS = timedelta(minutes=1)
"""How long a request to abort a job that does not exist is kept (arq's number, which it does not keep to)."""

_MOST_BYTES = 4 * 1024 * 1024
"""About how many bytes of messages one claim brings, and of results one call ends jobs with; at least one job's."""

_LIFETIMES = (to_ms(EXPIRY), to_ms(_KEEP_ATTEMPTS))

_MOST_ENDS = 500
"""How many jobs one call ends: a script blocks the server, some µs for each."""


class Claim(NamedTuple):
    """A job that is ours to run while its lease is renewed."""

    id: bytes
    """As it stands in Redis: any bytes."""

    owner: str
    attempt: int
    message: bytes | None
    """``None`` if Redis has it no more."""

    score: bytes
    is_aborted: bool
    trouble: str | None
    """Why the message cannot be read from Redis."""

    @property
    def is_hostile(self) -> bool:
        """Whether the id is none that a job may have."""
        return is_hostile_id(self.id)

    @property
    def job_id(self) -> str:
        """The id in a form that can be logged and stored."""
        return printable_job_id(self.id)


class Claimed(NamedTuple):
    """What one call has claimed."""

    claims: list[Claim]

    is_full: bool
    """Whether more jobs may be due: the room or the bytes were used up."""

    next_due: timedelta | None
    """When the next job is due, or a lease of somebody's ends; ``None`` if the queue holds nothing."""


class GiveUp(NamedTuple):
    """What becomes of a claimed job: made by ``end``, ``postpone`` and ``give_back``."""

    claim: Claim
    outcome: str
    value: int | bytes
    """The result, the delay in ms, or the score."""

    counts: bool = True
    keep_ms: int = 0
    held_ms: int = 0

    @property
    def group(self) -> tuple[str, str, int, int, int]:
        """What is said once for all jobs that have it in common."""
        attempts = 0 if self.outcome == "done" else self.claim.attempt - (not self.counts)
        return (self.outcome, self.claim.owner, attempts, self.keep_ms, self.held_ms)


def end(claim: Claim, result: bytes | None, *, keep: timedelta | None, held: timedelta | None = None) -> GiveUp:
    """Remove the job from the queue and keep its result, for ever if ``keep`` is ``None``."""
    keep_ms = 0 if keep is None else max(1, to_ms(keep))
    return GiveUp(claim, "done", result or b"", keep_ms=keep_ms, held_ms=_held_ms(held))


def postpone(claim: Claim, delay: timedelta, *, counts: bool = True, held: timedelta | None = None) -> GiveUp:
    """Put the job back, due after ``delay``."""
    return GiveUp(claim, "later", to_ms(delay), counts=counts, held_ms=_held_ms(held))


def give_back(claim: Claim) -> GiveUp:
    """Put the job back where it was, as if it had not been started."""
    return GiveUp(claim, "back", claim.score, counts=False)


def _held_ms(held: timedelta | None) -> int:
    return 0 if held is None else to_ms(held)


class Leases:
    """The leases of one worker on one queue. Its methods raise redis-py's errors."""

    def __init__(self, redis: Redis, queue: str, length: timedelta) -> None:
        """Use ``redis`` for all but claims, which must not be repeated unseen: those get a connection of their own."""
        self._keys = [queue, leases_key(queue)]
        self._length_ms = to_ms(length)
        self._redis = redis
        self._claiming = without_retries(redis)
        self._scripts = {
            name: redis.register_script(getattr(lease_scripts, name))
            for name in ("CLAIM", "RENEW", "FINISH", "RELEASE", "ABORTS")
        }
        self._worker = uuid4().hex
        self._calls = 0
        self._unanswered: list[str] = []

    async def claim(self, room: int) -> Claimed:
        """Claim up to ``room`` jobs that are due, orphans of killed workers first; count an attempt for each.

        What an earlier call has claimed whose answer was lost is given back first, uncounted: one round trip more.
        """
        if self._unanswered:
            await self._run("RELEASE", self._unanswered)
            self._unanswered = []
        self._calls += 1
        owner = f"{self._worker}:{self._calls}"
        arguments = [owner, self._length_ms, room, to_ms(_KEEP_ATTEMPTS), _LOOKS, _MOST_BYTES]
        try:
            rows, wait_ms, is_cut = await self._run("CLAIM", arguments, client=self._claiming)
        except (RedisError, OSError):
            self._unanswered.append(owner)
            raise
        return Claimed(
            claims=[_claim(owner, row) for row in rows],
            is_full=len(rows) >= room or bool(is_cut),
            next_due=None if wait_ms < 0 else timedelta(milliseconds=wait_ms),
        )

    async def uncount(self, claim: Claim) -> None:
        """Take back the attempt of a claim that started nothing."""
        await self._redis.decr(RETRY_KEY.encode() + claim.id)

    async def renew(self, claims: Collection[Claim]) -> set[bytes]:
        """Renew the leases; return the ids of jobs that are ours no more."""
        pairs = [part for claim in claims for part in (claim.id, claim.owner)]
        return set(await self._run("RENEW", [self._length_ms, *pairs])) if pairs else set()

    async def give_up(self, jobs: Sequence[GiveUp]) -> list[bool]:
        """End attempts; answer for each job whether it was still ours. If it was not, nothing of it was touched.

        One round trip for each 500 jobs or 4 MiB of results.
        """
        answers: list[bool] = []
        for chunk in _in_chunks(jobs):
            answers += map(bool, await self._run("FINISH", [*_LIFETIMES, *_arguments(chunk)]))
        return answers

    async def ask_abort(self, claim: Claim) -> None:
        """Ask for the job's abort, as arq's ``Job.abort`` does: it could not be carried out now."""
        await self._redis.zadd(ABORT_KEY, {claim.id: now_ms()})

    async def aborted(self) -> set[bytes]:
        """Return the ids of jobs that somebody wants aborted, at most 1,000."""
        return set(await self._scripts["ABORTS"](keys=[ABORT_KEY], args=[to_ms(_KEEP_ABORTS)]))

    async def _run(self, name: str, arguments: Sequence[Any], *, client: Redis | None = None) -> Any:  # noqa: ANN401
        return await self._scripts[name](keys=self._keys, args=arguments, client=client)

    async def aclose(self) -> None:
        """Close the connection for claims."""
        await self._claiming.aclose(close_connection_pool=True)


def _claim(owner: str, row: list[Any]) -> Claim:
    job_id, attempt, message, score, is_aborted, trouble = row
    text = None if trouble is None else trouble.decode("utf-8", "replace")
    return Claim(job_id, owner, attempt, message, score, bool(is_aborted), text)


def _arguments(jobs: Sequence[GiveUp]) -> Iterator[Any]:
    for group, found in groupby(jobs, key=attrgetter("group")):
        listed = list(found)
        yield from group
        yield len(listed)
        for job in listed:
            yield job.claim.id
            yield job.value


def _in_chunks(jobs: Sequence[GiveUp]) -> Iterator[Sequence[GiveUp]]:
    first = size = 0
    for at, job in enumerate(jobs):
        bytes_ = len(job.value) if isinstance(job.value, bytes) else 0
        if at - first >= _MOST_ENDS or (size and size + bytes_ > _MOST_BYTES):
            yield jobs[first:at]
            first, size = at, 0
        size += bytes_
    if jobs:
        yield jobs[first:]
