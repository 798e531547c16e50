"""Claims jobs, renews their leases and gives them up, in one round trip each. Knows nothing of what the jobs do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
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


@dataclass(frozen=True)
class Claim:
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

    async def claim(self, room: int) -> list[Claim]:
        """Claim up to ``room`` jobs that are due, orphans of killed workers first; count an attempt for each.

        What an earlier call has claimed whose answer was lost is given back first, uncounted: one round trip more.
        """
        if self._unanswered:
            await self._run("RELEASE", self._unanswered)
            self._unanswered = []
        self._calls += 1
        owner = f"{self._worker}:{self._calls}"
        arguments = [owner, self._length_ms, room, to_ms(_KEEP_ATTEMPTS), _LOOKS]
        try:
            rows = await self._run("CLAIM", arguments, client=self._claiming)
        except (RedisError, OSError):
            self._unanswered.append(owner)
            raise
        return [_claim(owner, row) for row in rows]

    async def uncount(self, claim: Claim) -> None:
        """Take back the attempt of a claim that started nothing."""
        await self._redis.decr(RETRY_KEY.encode() + claim.id)

    async def renew(self, claims: Collection[Claim]) -> set[bytes]:
        """Renew the leases; return the ids of jobs that are ours no more."""
        pairs = [part for claim in claims for part in (claim.id, claim.owner)]
        return set(await self._run("RENEW", [self._length_ms, *pairs])) if pairs else set()

    async def end(
        self, claim: Claim, result: bytes | None, *, keep: timedelta | None, held: timedelta | None = None
    ) -> bool:
        """Remove the job from the queue and keep its result, for ever if ``keep`` is ``None``.

        All three give-ups return whether the job was still ours; if it was not, they have touched nothing of it.
        """
        keep_ms = 0 if keep is None else max(1, to_ms(keep))
        return await self._give_up(claim, "done", 0, counts=True, result=result or b"", keep_ms=keep_ms, held=held)

    async def postpone(
        self, claim: Claim, delay: timedelta, *, counts: bool = True, held: timedelta | None = None
    ) -> bool:
        """Put the job back, due after ``delay``."""
        return await self._give_up(claim, "later", to_ms(delay), counts=counts, held=held)

    async def give_back(self, claim: Claim) -> bool:
        """Put the job back where it was, as if it had not been started."""
        return await self._give_up(claim, "back", claim.score, counts=False)

    async def _give_up(  # noqa: PLR0913 - what may become of a job
        self,
        claim: Claim,
        outcome: str,
        number: int | bytes,
        *,
        counts: bool,
        result: bytes = b"",
        keep_ms: int = 0,
        held: timedelta | None = None,
    ) -> bool:
        held_ms = 0 if held is None else to_ms(held)
        ends = [outcome, number, int(counts), result, keep_ms, held_ms, to_ms(EXPIRY)]
        return bool(await self._run("FINISH", [claim.id, claim.owner, *ends]))

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
