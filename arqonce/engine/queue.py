"""What the engine asks of its queues: ``leases.Leases`` does it in Redis, and a queue of the tests in memory.

``Leases`` says what each method does. All of them raise redis-py's errors.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

from arqonce.engine.ends import GiveUp
from arqonce.engine.permits import Admission, Applicant
from arqonce.work import Claim


class Claimed(NamedTuple):
    """What one call has claimed."""

    claims: list[Claim]

    is_full: bool
    """Whether more jobs may be due: the room or the bytes were used up."""

    next_due: timedelta
    """In what time the next job may be due, or a lease of somebody's ends; at most a day."""

    watches: bool
    """Whether this worker watches the queue."""

    watched_for: timedelta
    """Time left on another worker's watch, which that worker renews."""

    must_get_idle: bool = False
    """Whether nothing must be claimed until no job is ours: a suspect runs alone, or waits for that."""


class Look(NamedTuple):
    """What a worker that stands by has seen."""

    left: timedelta
    """Time left on another worker's watch, as far as a deputy knows; nothing: this worker watches."""

    is_deputy: bool
    """Whether this worker is the one that looks after the watch."""

    workers: int
    """How many live workers there are, with whatever queues; 0 if it is not known."""

    deputy_left: timedelta = timedelta(0)
    """For how long another worker is the deputy unless it looks again; nothing if that was not asked for."""


class Renewing(Protocol):
    """Renews leases from another event loop."""

    async def renew(self, claims: Collection[Claim]) -> None:
        """Renew the leases."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Watching(Protocol):
    """One worker's place among the idle workers of its queues."""

    async def wait_for_baton(self, longest: timedelta) -> bool:
        """Wait until another worker leaves it to us to claim, and say whether that was so."""
        ...

    async def look(self, watch: timedelta, *, is_first: bool = False) -> Look:
        """Become the deputy if there is none. As the deputy, watch the queues for this time if nobody does.

        The first look also asks for how long another is the deputy.
        """
        ...

    async def retire(self) -> None:
        """Be the deputy no more."""
        ...

    async def renew(self, watch: timedelta) -> bool:
        """Go on watching the queues for so long, and say whether it was still ours to watch."""
        ...

    def stop_waiting(self) -> None:
        """Break off ``wait_for_baton``."""
        ...

    async def resign(self) -> None:
        """Watch no more, and leave it to another to claim if nobody watches."""
        ...


class Queue(Protocol):
    """The queues that one worker serves, as it sees them."""

    on_claimed: Callable[[], None]
    on_news: Callable[[], None]

    @property
    def watch(self) -> Watching:
        """Its place among the idle workers."""
        ...

    async def claim(self, room: int, *, watch: timedelta, is_idle: bool) -> Claimed:
        """Claim up to ``room`` jobs that are due, and watch the queues if there is room left."""
        ...

    async def take_permits(self, applicants: Sequence[Applicant]) -> list[Admission]:
        """Take all permits of each job that has a slot, or park it."""
        ...

    async def give_up(self, jobs: Sequence[GiveUp]) -> list[bool]:
        """End attempts; answer for each job whether it was still ours."""
        ...

    async def renew(self, claims: Collection[Claim]) -> set[bytes]:
        """Renew the leases; return the ids of jobs that are ours no more."""
        ...

    def own_renewals(self) -> Renewing:
        """Return what renews the leases from another event loop."""
        ...

    async def uncount(self, claim: Claim) -> None:
        """Take back the attempt of a claim that started nothing."""
        ...

    async def is_queue_empty(self) -> bool:
        """Return whether no job is in any of the queues, due or not."""
        ...

    async def aborted(self, claims: Collection[Claim]) -> set[bytes]:
        """Return the ids of those of these jobs that somebody wants aborted."""
        ...

    @property
    def refusal(self) -> Exception | None:
        """Why nothing announces that a queue has changed; ``None`` if it is announced, or that is not known yet."""
        ...

    def doubt(self) -> None:
        """Do not rely on such announcements for a while."""
        ...
