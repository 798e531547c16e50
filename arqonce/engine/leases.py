"""Claims jobs, renews their leases and gives them up, many in one round trip. Knows nothing of what the jobs do."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.clock import CLOCK_OFF
from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import is_outage
from arqonce.connection.tracking import TrackingProof
from arqonce.connection.watched_keys import WatchedKeys
from arqonce.engine.ends import KEEP_ATTEMPTS, LIFETIMES, OVER, GiveUp, arguments_of
from arqonce.engine.permits import Admission, Applicant, written
from arqonce.engine.queue import Claimed
from arqonce.engine.renewals import Renewals, keys_of, owned
from arqonce.engine.scripts.claims import CLAIM
from arqonce.engine.scripts.finish import FINISH
from arqonce.engine.scripts.leases import ABORTS, RELEASE, RENEW, UNCOUNT
from arqonce.engine.scripts.limits import KEEP_IN_FORCE, TAKE_PERMITS
from arqonce.engine.watch import Watch
from arqonce.queues import ServedQueues, Turns
from arqonce.wire.keys import (
    ABORT_KEY,
    MOST_BYTES,
    RETRY_KEY,
    cut_calls,
    now_ms,
    pauses_key,
    printable_job_id,
    to_ms,
    watch_keys,
)
from arqonce.work import Claim

_LOOKS = 1000
"""Most jobs locked by plain arq workers that one claim skips."""

_KEEP_ABORTS = timedelta(minutes=1)
"""How long a request to abort a job that does not exist is kept (arq's number, which it does not keep to)."""

_SCRIPTS = {"RENEW": RENEW, "FINISH": FINISH, "RELEASE": RELEASE, "ABORTS": ABORTS}


class Leases:
    """The leases of one worker on its queues. Its methods raise redis-py's errors."""

    def __init__(
        self, redis: Redis, queues: ServedQueues | str, length: timedelta, *, must_know_pauses: bool = False
    ) -> None:
        """Serve the queues, or the one of that name.

        With ``must_know_pauses``, claim nothing of a queue while Redis does not know whether it is paused: a relay says
        so (``connection.pauses``).

        ``redis`` is for renewals and rare things; what is done for each job gets a connection of its own. A claim must
        not be repeated unseen. And an end that goes the way of the claims does not ring us (``waking``).
        """
        served = ServedQueues((queues,)) if isinstance(queues, str) else queues
        self._names = served.names
        self._keys = keys_of(served.names)
        self._watched = frozenset(key.encode() for name in served.names for key in (name, pauses_key(name)))
        watched = watch_keys(served.names, relays=must_know_pauses)
        self._watch_keys = [watched.watcher, watched.baton]
        self._turns = Turns(served)
        self._length_ms = to_ms(length)
        self._must_know_pauses = must_know_pauses
        self._redis = redis
        self._direct = self.line = DirectConnection(redis, tracks=True)
        self.watched_keys = WatchedKeys()
        """Keys of other parts that read them on ``line``."""
        self._direct.on_change = self._hear
        self._direct.on_lost = self._lose
        self._scripts = {name: redis.register_script(script) for name, script in _SCRIPTS.items()}
        self.on_claimed: Callable[[], None] = lambda: None
        """Called when a claim is answered, before anything that happens later."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when others have changed the queue, jobs of ours were put back, or we would not hear of it."""
        self._proof = TrackingProof(self._direct, redis, self._tell_news)
        self._worker = uuid4().hex
        self.watch = Watch(redis, self._direct, watched, self._worker)
        self._calls = 0
        self._unanswered: list[str] = []
        self._skip = [0] * len(served.names)  # jobs at the head of each that plain arq workers have locked

    async def claim(self, room: int, *, watch: timedelta = timedelta(0), is_idle: bool = False) -> Claimed:
        """Claim up to ``room`` jobs that are due, orphans of killed workers first; count an attempt for each.

        Each queue gets the places that are its own (``ServedQueues``); what is left goes in order, as do the claims.

        Only an ``is_idle`` worker, which has no job, gets one that is suspected of having killed its workers; that one
        comes alone. If there is room left, watch the queues for ``watch`` unless another does. One round trip. What an
        earlier call has claimed whose answer was lost is given back first, uncounted: one round trip more.
        """
        if self._unanswered:
            await self._run("RELEASE", self._unanswered)
            self._unanswered = []
        self._calls += 1
        owner = f"{self._worker}:{self._calls}"
        limits = [owner, self._length_ms, room, to_ms(KEEP_ATTEMPTS), _LOOKS, MOST_BYTES]
        opened = await self._direct.open()
        if watch:
            self._proof.begin(opened)
        pairs = [part for pair in zip(self._skip, self._turns.deal(room), strict=True) for part in pair]
        arguments = [*limits, self._worker, to_ms(watch) if self.is_told else 0, int(is_idle)]
        arguments += [int(self._must_know_pauses), *pairs]
        keys = self._watch_keys + self._keys
        try:
            answer = await self._direct.run(CLAIM, keys, arguments, on_answer=self.on_claimed)
        except (RedisError, OSError):
            self._unanswered.append(owner)
            raise
        rows, due_ms, is_cut, watched_ms, must_get_idle, self._skip, theirs_ms = answer
        offset_ms = offset if abs(offset := theirs_ms - now_ms()) > to_ms(CLOCK_OFF) else 0
        return Claimed(
            claims=[_claim(owner, row, self._names, offset_ms) for row in sorted(rows, key=_rank)],
            is_full=len(rows) >= room or bool(is_cut or must_get_idle or any(self._skip)),
            next_due=timedelta(milliseconds=due_ms),
            watches=watched_ms == 0,
            watched_for=timedelta(milliseconds=max(0, watched_ms)),
            must_get_idle=bool(must_get_idle),
        )

    @property
    def refusal(self) -> Exception | None:
        """Why Redis sends no invalidations; ``None`` if it does, or if that is not known yet."""
        return self._direct.refusal or self._proof.failure

    @property
    def is_told(self) -> bool:
        """Whether this worker receives invalidations: one that does not must not watch."""
        return self._direct.is_tracking and self._proof.failure is None

    def doubt(self) -> None:
        """Do not rely on invalidations for a while: jobs were due that none announced."""
        self._proof.fail("jobs were due that it has not announced")

    async def uncount(self, claim: Claim) -> None:
        """Take back the attempt of a claim that started nothing. The job may have ended since: then there is none."""
        await self._direct.call("EVAL", UNCOUNT, 1, RETRY_KEY.encode() + claim.id)

    async def is_queue_empty(self) -> bool:
        """Return whether no job is in any of the queues, due or not. One round trip."""
        queued: int = await self._redis.exists(*self._names)
        return queued == 0

    async def renew(self, claims: Collection[Claim]) -> set[bytes]:
        """Renew the leases; return the ids of jobs that are ours no more."""
        return set(await self._run("RENEW", [self._length_ms, *owned(claims, self._names)])) if claims else set()

    def own_renewals(self) -> Renewals:
        """Return what renews the leases from another event loop, over a connection of its own."""
        return Renewals(self._redis, self._names, self._length_ms)

    async def give_up(self, jobs: Sequence[GiveUp]) -> list[bool]:
        """End attempts; answer for each job whether it was still ours. If it was not, nothing of it was touched.

        One round trip for each 500 jobs or 4 MiB of results.
        """
        answers: list[bool] = []
        sizes = [len(job.value) if isinstance(job.value, bytes) else 0 for job in jobs]
        for part in cut_calls(sizes):
            *was_ours, released = await self._finish(arguments_of(jobs[part], self._names))
            answers += map(bool, was_ours)
            if released:
                self.on_news()  # Redis sends no invalidation for our own changes
        if any(job.outcome not in OVER for job in jobs):
            self.on_news()  # as above
        return answers

    async def take_permits(self, applicants: Sequence[Applicant]) -> list[Admission]:
        """Take all permits of each job that has a slot, or park it. One round trip for each 500 jobs."""
        answers: list[Admission] = []
        for part in cut_calls([0] * len(applicants)):
            arguments = [self._length_ms, *LIFETIMES, *written(applicants[part], self._names)]
            found, released = await self._direct.run(TAKE_PERMITS, self._keys, arguments)
            answers += map(Admission, found)
            if released or Admission.PARKED in found:
                self.on_news()  # as above; and the next claim learns when to look again
        return answers

    async def keep_in_force(self, limits: Mapping[str, str]) -> None:
        """Say that the code has these limits: number and time by name (``limits.in_force``). One round trip."""
        pairs = [part for pair in limits.items() for part in pair]
        if await self._direct.run(KEEP_IN_FORCE, self._names, pairs):
            self.on_news()  # as above

    async def _finish(self, arguments: list[Any]) -> list[int]:
        """End attempts on the way of the claims and, if that is broken, on the other, which tries again."""
        try:
            answers: list[int] = await self._direct.run(FINISH, self._keys, arguments)
        except (RedisError, OSError) as error:
            if isinstance(error, RedisError) and not is_outage(error):
                raise
            answers = await self._run("FINISH", arguments)
        return answers

    async def aborted(self, claims: Collection[Claim]) -> set[bytes]:
        """Return the ids of those of these jobs that somebody wants aborted. One round trip."""
        ids = [claim.id for claim in claims]
        return set(await self._scripts["ABORTS"](keys=[ABORT_KEY], args=[to_ms(_KEEP_ABORTS), *ids]))

    async def _run(self, name: str, arguments: Sequence[Any]) -> Any:  # noqa: ANN401 - what the script answers
        return await self._scripts[name](keys=self._keys, args=arguments)

    def _hear(self, keys: Collection[bytes] | None) -> None:
        self._proof.hear(keys)
        self.watched_keys.hear(keys)
        if keys is None or not self._watched.isdisjoint(keys):
            self.on_news()

    def _lose(self) -> None:
        self.watched_keys.hear(None)
        self.on_news()

    def _tell_news(self) -> None:
        self.on_news()

    async def aclose(self) -> None:
        """Close the connections of our own."""
        await self._proof.aclose()
        self._direct.close()
        self.watch.close()


def _rank(row: list[Any]) -> tuple[bool, int]:
    """Return the place of a job among those that are claimed with it: jobs of killed workers first, then by queue."""
    return not row[7], row[8]


def _claim(owner: str, row: list[Any], names: Sequence[str], offset_ms: int) -> Claim:
    raw_id, attempt, message, score, is_aborted, trouble, excused, was_left, number = row
    text = None if trouble is None else trouble.decode("utf-8", "replace")
    return Claim(
        raw_id, printable_job_id(raw_id), owner, attempt, message, score, bool(is_aborted), text, excused,
        bool(was_left), names[number - 1], offset_ms,
    )  # fmt: skip
