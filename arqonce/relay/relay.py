"""The relay: writes promised jobs into Redis until they have ended. PostgreSQL is the source of truth.

Which jobs are due is the statement of ``dispatch_batch``, in ``arqonce/ledger/outbox.py``.

Runs in every worker, and alone with the command ``relay``. Any number may run at once. Each serves the queues
of its WORKER_QUEUE, all with the same statement; of each at most 500 jobs at a time, so that none waits for another,
and as many bytes of messages as there is time for (``portion``).

Every one to two seconds an idle relay executes one statement in PostgreSQL; every three seconds or, if another one
listens, every ten, it makes one round trip to Redis, and every few seconds an attempt to take the listener's lock. The
listening relay also holds a connection, and compares the pauses on both servers, at most once a second, with one more
round trip to each. Behind PgBouncer, which passes on no notifications, a relay polls every 500 ms. Polling a million
jobs that are not due reads a few pages of an index.

The relay of a worker that rests (``arqonce.rest``) leaves all that to the two that do not, the watcher's and its
deputy's, and polls every few minutes. If one of those loses PostgreSQL, the others look, too, and poll as always until
it is back.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from arqonce.background import running
from arqonce.connection.presence import give_alarm
from arqonce.connection.redis import build_redis, is_outage, is_refusal, why_waiting
from arqonce.database.faults import cure_of, is_of_database, is_transient, why_not_written, why_unavailable
from arqonce.execution.dead_letters import bury, write_letter
from arqonce.failures import PromiseExpiredError
from arqonce.ledger.losses import note_loss
from arqonce.ledger.outbox import Promise, dispatch_batch, is_full, take_back
from arqonce.portion import Portion
from arqonce.relay.epoch import RedisEpochs
from arqonce.relay.expiry import has_expired
from arqonce.relay.listener import Wakeup
from arqonce.relay.pauses import PausesCopied
from arqonce.relay.unserved import UnservedQueues
from arqonce.rest import Rest
from arqonce.settings.worker import Settings
from arqonce.trouble import AwayTime, Trouble
from arqonce.wire.keys import EXPIRY, JOB_KEY, now_ms, to_ms

_LOOK_EVERY = timedelta(seconds=2)
"""Longest polling interval. Each is random, from half of it to all of it, so that a fleet does not poll at once."""

_LOOK_AT_REST = timedelta(minutes=4)
"""Longest polling interval while the worker rests; random, as above."""

_LOOK_EVERY_PGBOUNCER = timedelta(milliseconds=500)
"""Polling interval behind PgBouncer, where no relay can listen."""

_EPOCH_EVERY = timedelta(seconds=3)
"""How often the epoch is read. Each time costs three commands in Redis, in idle workers, too."""

_EPOCH_EVERY_OTHERS = timedelta(seconds=10)
"""The same for a relay while another one listens, and so notices a loss first. Until then it may dispatch jobs in the
earlier epoch, which are dispatched again in the next one."""

_RECONNECT_EVERY = timedelta(milliseconds=500)
"""Pause between attempts to reach a server that is unreachable."""

_TAKE_LIMIT = timedelta(seconds=5)
"""How long one dispatch may take in PostgreSQL, the wait for a connection included."""

_MOST_BYTES = 8 * 1024 * 1024
"""Bytes of messages in one dispatch: 500 of the largest would take a relay 2 GB."""

_LAST_LOOK = timedelta(seconds=3)
"""How long shutdown waits for a dispatch under way, so that every row marked as dispatched reaches Redis."""

_MARGIN = timedelta(days=1)
"""How long before its receipt could be deleted a promise expires, so that a run under way still finds the receipt."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.relay.relay")


@asynccontextmanager
async def open_relay(
    sessions: async_sessionmaker[AsyncSession], settings: Settings, rest: Rest | None = None
) -> AsyncIterator["Relay"]:
    """Run a relay in the background until the end. Its first turn is complete when this yields.

    While the worker of ``rest`` rests, other relays with the same queues do not.
    """
    rest = rest or Rest()
    queue = settings.queue
    url = queue.url.get_secret_value()
    async with build_redis(url, Redis, password=queue.plain_password, max_connections=4, retries=1) as redis:
        engine: AsyncEngine = sessions.kw["bind"]
        wakeup = None if settings.database.pgbouncer else Wakeup(engine, settings.worker.queue.names, rest)
        keep = settings.worker.keep_receipts - _MARGIN
        relay = Relay(sessions, redis, queues=settings.worker.queue.names, keep=keep, wakeup=wakeup, rest=rest)
        await relay.turn()
        async with running(relay.run, name="relay"):
            yield relay


@dataclass
class Counts:
    """What a relay has done."""

    given: int = 0
    again: int = 0
    expired: int = 0
    epochs: int = 0


class Relay:
    """Dispatches outbox rows whenever it is woken, and by polling."""

    def __init__(  # noqa: PLR0913 - what it connects
        self,
        sessions: async_sessionmaker[AsyncSession],
        redis: Redis,
        *,
        queues: Sequence[str],
        keep: timedelta,
        wakeup: Wakeup | None,
        rest: Rest | None = None,
    ) -> None:
        """Query nothing yet. A job older than ``keep`` must not run any more."""
        self._rest = rest or Rest()
        self._sessions = sessions
        self._redis = redis
        self.queues = queues
        self._keep = keep
        self.wakeup = wakeup
        self._epochs = RedisEpochs(redis, sessions, queues)
        self._unserved = UnservedQueues(redis, sessions, queues)
        self._pauses = PausesCopied(redis, sessions, queues)
        self._known: tuple[float, Mapping[str, int]] | None = None
        self._last_epochs: Mapping[str, int] | None = None
        self._again = 0
        self._is_full = False
        self._portion = Portion(_TAKE_LIMIT, most=_MOST_BYTES, late=(TimeoutError, RedisTimeoutError))
        self._trouble = Trouble(_log, over="the relay goes on")
        self.counts = Counts()
        self.away = {"redis": AwayTime(), "postgresql": AwayTime()}
        """For how long each server was away."""

    async def run(self) -> None:
        """Take turns until cancelled."""
        if self.wakeup is None:
            while True:
                await self._take_turns()
                await self._rest.sleep(_LOOK_EVERY_PGBOUNCER, self._at_rest(_LOOK_EVERY_PGBOUNCER))
        async with self.wakeup.listening():
            while True:
                await self._take_turns()
                usual = _LOOK_EVERY * _some()
                await self.wakeup.wait(usual, self._at_rest(usual))

    def _at_rest(self, usual: timedelta) -> timedelta:
        """Return how long to wait for the next turn while the worker rests: until an outage is over, as always."""
        return usual if self._trouble.is_known else _LOOK_AT_REST * _some()

    async def _take_turns(self) -> None:
        self._is_full = True
        while self._is_full:
            await self.turn()
        if self._again:
            count, self._again = self._again, 0
            noticed_at = await self._note_loss(count)
            since = None if noticed_at is None else noticed_at.isoformat(timespec="seconds")
            _log.info("promised jobs were given again: Redis had lost them", count=count, noticed_at=since)
        if self._is_first:
            await self._unserved.look()

    @property
    def database(self) -> str | None:
        """A name of the database whose jobs it gives, once it is known."""
        return self._epochs.database

    @property
    def _is_first(self) -> bool:
        """Whether it does what one of all relays with these queues has to do; all do it if none of them can listen."""
        return self.wakeup is None or self.wakeup.is_listening

    async def _note_loss(self, given_again: int) -> datetime | None:
        """Keep it on record for ``status`` that Redis has lost jobs; return when that was noticed first."""
        assert self._last_epochs is not None  # noqa: S101 - read before anything is dispatched
        with suppress(SQLAlchemyError, OSError):  # only status lacks it
            async with asyncio.timeout(_TAKE_LIMIT.total_seconds()), self._sessions.begin() as session:
                return await note_loss(session, max(self._last_epochs.values()), given_again=given_again)
        return None

    async def turn(self) -> int:
        """Dispatch once; return how many jobs. While a server is unreachable, return 0 after half a second."""
        self._is_full = False
        try:
            given = await self._look()
        except Exception as error:  # noqa: BLE001 - any error: if the relay ended, nothing would dispatch the jobs
            self._known = None
            if not self._trouble.is_known and _server_of(error) == "postgresql":
                with suppress(RedisError, OSError):
                    await give_alarm(self._redis)
            trouble, facts = _trouble_of(error)
            self._trouble.note(trouble, **facts)
            self._note_away(_server_of(error))
            await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
            return 0
        self._trouble.note(None)
        self._note_away(None)
        return given

    def _note_away(self, gone: str | None) -> None:
        for server, time_away in self.away.items():
            time_away.note(is_away=server == gone)

    async def _look(self) -> int:
        epochs = await self._read_epochs()
        await self._pauses.look(is_first=self._is_first)
        look = asyncio.create_task(self._dispatch(epochs), name="relay look")
        try:
            return await asyncio.shield(look)
        except asyncio.CancelledError:
            await asyncio.wait([look], timeout=_LAST_LOOK.total_seconds())
            look.cancel()
            await asyncio.gather(look, return_exceptions=True)
            raise

    async def _read_epochs(self) -> Mapping[str, int]:
        now = time.monotonic()
        every = _EPOCH_EVERY if self._is_first else _EPOCH_EVERY_OTHERS
        if self._known is None or now - self._known[0] > every.total_seconds():
            epochs = await self._epochs.read()
            if self._last_epochs not in (None, epochs):
                self._pauses.hurry()
                epoch = max(epochs.values())
                _log.warning("Redis was emptied, restarted or replaced: promised jobs are given again", epoch=epoch)
                self.counts.epochs += 1
                self._last_epochs = epochs
                await self._note_loss(0)
            self._known, self._last_epochs = (now, epochs), epochs
        return self._known[1]

    async def _dispatch(self, epochs: Mapping[str, int]) -> int:
        with self._portion.measured() as most:
            async with asyncio.timeout(_TAKE_LIMIT.total_seconds()), self._sessions.begin() as session:
                promises = await dispatch_batch(session, epochs=epochs, keep=self._keep, most_bytes=most)
            self._is_full = is_full(promises, epochs, most)
            self._again += sum(promise.is_again for promise in promises)
            # Committed before they are written into Redis: see dispatch_batch.
            due: list[Promise] = []
            too_late: list[Promise] = []
            for promise in promises:
                (too_late if promise.is_late and not has_expired(promise.message) else due).append(promise)
            await self._give_or_take_back(due)
        self.counts.given += len(due)
        self.counts.again += sum(promise.is_again for promise in due)
        for promise in too_late:
            await self._give_up(promise)
            self.counts.expired += 1
        return len(promises)

    async def _give_or_take_back(self, promises: Sequence[Promise]) -> None:
        try:
            await self._give(promises)
        except (RedisError, OSError):
            with suppress(SQLAlchemyError, OSError):  # otherwise they are due again at their retry time
                async with asyncio.timeout(_TAKE_LIMIT.total_seconds()), self._sessions.begin() as session:
                    await take_back(session, [promise.job_id for promise in promises])
            raise

    async def _give(self, promises: Sequence[Promise]) -> None:
        """Write the jobs into Redis in one pipeline, or one by one if the server aborts it because of one of them."""
        if not promises:
            return
        try:
            await self._send(promises)
        except (RedisError, OSError) as error:
            if _is_of_redis(error):
                raise
            await self._redis.ping()  # raises if it is unreachable
            for promise in promises:
                await self._give_one(promise)

    async def _give_one(self, promise: Promise) -> None:
        try:
            await self._send([promise])
        except (RedisError, OSError) as error:
            if _is_of_redis(error):
                raise
            await self._redis.ping()
            _log.error("job cannot be given to Redis", job_id=promise.job_id, exc_info=error)

    async def _send(self, promises: Sequence[Promise]) -> None:
        """Queue the jobs that are not queued. NX leaves the keys of a waiting or running job unchanged."""
        now = now_ms()
        async with self._redis.pipeline(transaction=False) as pipe:
            for promise in promises:
                due, last = _milliseconds(promise.due_at), _milliseconds(promise.last_at)
                until = max(now, due) + to_ms(EXPIRY)
                expiry = (until if promise.is_late else min(until, last)) - now  # late: a worker ends it as expired
                # In this order, so that a worker that finds an id in the queue finds its message, too.
                pipe.set(JOB_KEY + promise.job_id, promise.message, px=max(1, expiry), nx=True)
                pipe.zadd(promise.queue, {promise.job_id: due}, nx=True)
            answers = await pipe.execute(raise_on_error=False)
        errors = [(at // 2, answer) for at, answer in enumerate(answers) if isinstance(answer, Exception)]
        for _, error in errors:
            if isinstance(error, RedisError) and is_outage(error):
                raise error
        if errors:
            first, error = errors[0]
            job_id, count = promises[first].job_id, len({at for at, _ in errors})
            _log.error("jobs cannot be given to Redis", count=count, job_id=job_id, reason=str(error))

    async def _give_up(self, promise: Promise) -> None:
        failure = PromiseExpiredError(
            f"promised or due more than {self._keep.days} days ago and never ended: "
            "check that it has not taken effect, then retry or discard it"
        )
        letter = write_letter(
            failure,
            failure,
            job_id=promise.job_id,
            job_name=promise.job_name,
            message=promise.message,
            attempts=0,
            queue=promise.queue,
        )
        await bury(self._sessions, letter)


def _is_of_redis(error: Exception) -> bool:
    """Return whether no job caused it: Redis refuses all, or it, or the network, was too slow."""
    return is_refusal(error) or isinstance(error, RedisTimeoutError)


def _some() -> float:
    return random.uniform(0.5, 1)  # noqa: S311 - no secret


def _trouble_of(error: Exception) -> tuple[str, dict[str, object]]:
    """Return the event and its facts: of an outage the reason, of anything else where it was raised."""
    if _server_of(error) == "redis":
        return "the relay waits for Redis", {"reason": why_waiting(error)}
    if reason := why_not_written(error):
        return f"the relay waits: PostgreSQL cannot be written to: {reason}", {}
    if isinstance(error, TimeoutError):  # of our own, around statements of PostgreSQL; redis-py has others
        return "the relay waits for PostgreSQL", {
            "reason": f"{why_unavailable(error)}: is a table of jobs locked, or the network slow?"
        }
    if is_transient(error):
        server = "PostgreSQL" if is_of_database(error) else "PostgreSQL or Redis"
        return f"the relay waits for {server}", {"reason": why_unavailable(error)}
    if cure := cure_of(error):
        return "the relay waits for PostgreSQL", {"reason": cure}
    return "the relay failed and tries again", {"exc_info": error}


def _server_of(error: Exception) -> str | None:
    """Return which server cannot be used; ``None`` if the fault is another. What is not Redis's is PostgreSQL's."""
    if isinstance(error, RedisError):
        return "redis" if is_outage(error) or isinstance(error, ResponseError) else None
    return "postgresql" if why_not_written(error) or is_transient(error) or cure_of(error) else None


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)
