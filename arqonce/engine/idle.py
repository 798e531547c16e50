"""Decides when an idle worker claims: when the queue has changed, not when time has passed.

**One watches.** A claim reads the queue on a connection that tracks what it has read (``direct``), so the next change
of the queue by anybody, a plain arq producer included, reaches us as one message, and we claim: no round trip lies
between. Of all idle workers of a queue only one, the watcher, does that. Forty would all claim one job; so the others
stand by, each blocked on a list (``scripts.watcher``), which Redis wakes one by one. The claim itself elects, at the
cost of no further command. A claim that leaves no room, or leaves jobs due, wakes the next one in the same script.
One job for an idle fleet costs one claim and one end, whether 1, 10 or 40 workers are idle.

**Several queues.** Workers with the same queues elect one watcher for all of these together: it tracks each, and more
queues cost no more commands. Workers with other queues have a watcher of their own; a job in a queue that both serve
wakes both watchers, of which one claims for nothing.

**Timers.** The watcher claims when the next deferred job is due or the next lease ends, and in any case every
``_SAFETY_POLL``, for messages that get lost. Every third of ``_WATCH`` it renews its watch, by one plain command, which
a server refuses that was demoted. A killed watcher's watch expires, and its **deputy**, one of those who stand by,
takes over: in at most ``_WATCH`` and a quarter of a second, in which new jobs may wait. With a short lease, in less
than the lease.

**Rest.** The others who stand by rest (``arqonce.rest``), and look the more rarely the more workers there are: about
once a second one of them would take the place of a deputy that has died, and then look after the watch. Each looks once
more when the word of the deputy that it has found would end: where workers come and go, it may be that of a dead one.

**Idle costs.** ``python -m bench --only idle`` measures a fleet: docs/benchmarks.md has the figures.

**Rings for nothing.** Other workers' ends and renewals change the queue, too. The watcher claims for nothing ten times
at once, and then at most fifty times a second; a claim that finds a job sets that back. Our own ends do not ring.

**Polling.** Where the server or a proxy refuses tracking or the blocking command, the worker looks at the queue each
poll delay, as before, and says so once. In burst mode, too. So it does where tracking is accepted and no invalidation
arrives: ``tracking`` sees that at the beginning, and a safety look that finds an unannounced job sees it later. Both
are tried again after a minute.
"""

import asyncio
import random
from datetime import timedelta
from enum import Enum, auto

import structlog
from redis.exceptions import ResponseError

from arqonce.connection.redis import is_outage
from arqonce.engine.options import Options
from arqonce.engine.queue import Claimed, Look, Queue

_WATCH = timedelta(milliseconds=4500)
"""How long a watch lasts without renewal. With the spread below, a queue is without a watcher for less than 5 s."""

_SAFETY_POLL = timedelta(seconds=15)
"""How often a watcher claims though nothing has rung."""

_SLACK = timedelta(seconds=1)
"""How much sooner than expected a job may be due by the server's clock."""

_RENEW_PAUSE = timedelta(milliseconds=500)
"""Shortest time between two renewals of the watch; a third of the watch if that is shorter, as with a short lease."""

_SPREAD = timedelta(milliseconds=250)
"""Over how long a deputy spreads its look at a watch that has expired: others may look as well."""

_LOOK_EACH = timedelta(seconds=1.25)
"""In about this time one of all that rest looks whether there is a deputy."""

_LOOK_AT_LEAST = timedelta(seconds=90)
"""Longest time between two looks of one worker: in larger fleets there are more looks."""

_EMPTY_CLAIMS = 10
"""How many claims in a row may find nothing before they are slowed down."""

_EMPTY_CLAIMS_EACH = timedelta(milliseconds=20)
"""One such claim in this time, then: for so long a new job may wait beside others that end."""

_AGAIN = timedelta(milliseconds=500)
"""How long a worker that could not stand by waits before it tries again: another one watches."""

_CURE = (
    "allow the worker's user CLIENT TRACKING and BLPOP (deploy/redis/users.acl), connect without the proxy, or use "
    "Redis or Valkey itself"
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.idle")


class Bell:
    """Wakes the one task that waits for it. Rung while nobody waits, it is heard at the next wait."""

    def __init__(self) -> None:
        """Begin silent."""
        self._is_rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who waits, or will wait next."""
        self._is_rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until it is rung, at most for so long. A plain future and a timer: on the way of each job."""
        if not self._is_rung and seconds > 0:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self.ring)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._is_rung = False


class EmptyClaims:
    """Slows down claims that find nothing: a bucket of tokens, filled again by a claim that finds something."""

    def __init__(self) -> None:
        """Begin with all tokens."""
        self._tokens = float(_EMPTY_CLAIMS)
        self._counted = 0.0

    def count(self, now: float, *, found: bool) -> None:
        """Take note of a claim."""
        gained = (now - self._counted) / _EMPTY_CLAIMS_EACH.total_seconds()
        self._tokens = float(_EMPTY_CLAIMS) if found else min(_EMPTY_CLAIMS, self._tokens + gained) - 1
        self._counted = now

    def pause(self, now: float) -> float:
        """Return for how many seconds the next claim should wait."""
        gained = (now - self._counted) / _EMPTY_CLAIMS_EACH.total_seconds()
        return max(0.0, 1 - self._tokens - gained) * _EMPTY_CLAIMS_EACH.total_seconds()


class _State(Enum):
    AWAY = auto()
    """No place among the idle: full, or between two claims, or after a failed one."""
    POLLING = auto()
    WATCHING = auto()
    STANDING_BY = auto()


class Waking:
    """The idle time of one worker: it watches the queue, stands by, or polls. The methods raise redis-py's errors."""

    def __init__(self, leases: Queue, bell: Bell, options: Options) -> None:
        """Begin with a claim to be made. A burst polls."""
        self._leases = leases
        self._bell = bell
        self._rest = options.rest
        self._poll = options.poll
        self._watch = timedelta(0) if options.burst else min(_WATCH, options.lease * 0.75)
        self._renew_every = (self._watch / 3).total_seconds()
        self._renew_pause = min(_RENEW_PAUSE.total_seconds(), self._renew_every)
        self._state = _State.AWAY
        self._claim_at = 0.0
        self._renewed = 0.0
        self._is_rung = False
        self._was_rung = False
        """Whether it had rung before the last claim was answered."""
        self._quiet_until = 0.0
        """Until when no job becomes due by itself that the last claim has seen."""
        self._owes_baton = False
        """Whether another may be waiting for us to claim, although we are away."""
        self._standing_by: asyncio.Task[None] | None = None
        self._empty_claims = EmptyClaims()
        self._is_told = False
        self._loop = asyncio.get_running_loop()
        leases.on_claimed = self._forget_ring
        leases.on_news = self._ring

    @property
    def wants_claim(self) -> bool:
        """Whether it is time to claim."""
        return self._state is _State.AWAY or self._loop.time() >= self._claim_at

    @property
    def is_away(self) -> bool:
        """Whether a claim is wanted as soon as the worker can."""
        return self._state is _State.AWAY

    async def wait(self, longest: float) -> None:
        """Wait until it may be time to claim, the bell rings, or for so many seconds."""
        if self._state is not _State.AWAY:
            longest = min(longest, self._claim_at - self._loop.time())
        if self._state is _State.WATCHING:
            longest = min(longest, self._renewed + self._renew_every - self._loop.time())
        await self._bell.wait(longest)

    async def claim(self, room: int, *, is_idle: bool) -> Claimed:
        """Claim, and find our place among the idle workers. One round trip."""
        was_quiet = self._state is _State.WATCHING and self._loop.time() < self._quiet_until
        self._owes_baton = True
        self._leave()
        claimed = await self._leases.claim(room, watch=self._watch, is_idle=is_idle)
        if was_quiet and claimed.claims and not self._was_rung:
            self._leases.doubt()
        self._owes_baton = False  # the script has seen to it
        now = self._loop.time()
        self._empty_claims.count(now, found=bool(claimed.claims))
        if not claimed.is_full:
            self._settle(claimed, now)
        return claimed

    async def renew(self) -> None:
        """Go on watching, unless that was said just now; claim, if another one watches by now. One round trip or none.

        Whatever has ended an idle worker's wait, this comes first: it has a time limit, and repeats nothing unseen.
        """
        if self._state is _State.WATCHING and self._loop.time() >= self._renewed + self._renew_pause:
            if await self._leases.watch.renew(self._watch):
                self._renewed = self._loop.time()
            else:
                self._leave()

    def lose(self) -> None:
        """Claim next: Redis has failed us, and may have failed silently where we stand by."""
        if self._state is _State.STANDING_BY:
            self._leave()
            self._end_standing_by()

    def _leave(self) -> None:
        self._state, self._rest.stands_by = _State.AWAY, False
        self._rest.end()

    def _settle(self, claimed: Claimed, now: float) -> None:
        if claimed.watches:
            self._state = _State.WATCHING
            soon = min(claimed.next_due, _SAFETY_POLL).total_seconds()
            self._claim_at = now + max(soon, self._empty_claims.pause(now))
            self._quiet_until = now + (claimed.next_due - _SLACK).total_seconds()
            self._renewed = now
            if self._is_told:
                self._is_told = False
                _log.info("Redis wakes us again")
            if self._is_rung:
                self._claim_soon()
        elif claimed.watched_for:
            self._state, self._claim_at, self._rest.stands_by = _State.STANDING_BY, float("inf"), True
            self._standing_by = self._loop.create_task(self._stand_by(), name="stand by")
            self._standing_by.add_done_callback(self._stood_by)
        else:
            self._begin_to_poll(self._leases.refusal)

    def _begin_to_poll(self, refusal: Exception | None, *, pause: timedelta | None = None) -> None:
        self._leave()
        self._state = _State.POLLING
        self._claim_at = self._loop.time() + (self._poll if pause is None else pause).total_seconds()
        if refusal is not None and not self._is_told:
            self._is_told = True
            _log.warning("Redis does not wake us: looking at the queue instead", reason=str(refusal), cure=_CURE)

    def _ring(self) -> None:
        self._is_rung = True
        self._claim_soon()

    def _forget_ring(self) -> None:
        self._was_rung, self._is_rung = self._is_rung, False  # the claim has seen what has rung before it

    def _claim_soon(self) -> None:
        if self._state is _State.WATCHING:
            now = self._loop.time()
            self._claim_at = min(self._claim_at, now + self._empty_claims.pause(now))
            self._bell.ring()

    async def _stand_by(self) -> None:
        """Return when this worker must claim: it has received the baton, or the watch has expired.

        A deputy says then that it is none: who has begun to stand by meanwhile would else take it for one.
        """
        watch, is_first, has_baton = self._leases.watch, True, False
        while not has_baton and (found := await watch.look(self._watch, is_first=is_first)).left:
            if found.is_deputy:
                self._rest.end()
            else:
                self._rest.begin()
            has_baton, is_first = await watch.wait_for_baton(_until_next_look(found)), False
        await watch.retire()

    def _stood_by(self, task: "asyncio.Task[None]") -> None:
        if task is not self._standing_by:
            return  # it was ended
        self._standing_by = None
        error = task.exception()
        if isinstance(error, ResponseError) and not is_outage(error):
            self._begin_to_poll(error)
        elif error is not None:
            self._begin_to_poll(None, pause=_AGAIN)
        else:
            self._claim_at = 0.0
        self._bell.ring()

    async def resign(self) -> None:
        """Neither watch nor stand by, and let another one claim if nobody watches. One round trip if we did either."""
        # Whoever stands by may have been given the baton just now.
        self._owes_baton = self._owes_baton or self._state in {_State.WATCHING, _State.STANDING_BY}
        self._leave()
        self._end_standing_by()
        if self._owes_baton:
            await self._leases.watch.resign()
            self._owes_baton = False  # not before: a cancelled worker asks again when it is closed

    def _end_standing_by(self) -> None:
        if self._standing_by is not None:
            self._standing_by.cancel()
            self._standing_by = None
            self._leases.watch.stop_waiting()


def _until_next_look(found: Look) -> timedelta:
    soon = found.left + _SPREAD * random.random()  # noqa: S311 - no secret
    if found.is_deputy:
        return soon
    if found.deputy_left:  # it may have died just now: who has begun to stand by looks once more
        return soon - found.left + found.deputy_left
    pause = min(_LOOK_EACH * found.workers, _LOOK_AT_LEAST)
    return max(soon, pause * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
