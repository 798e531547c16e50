"""What becomes of claimed jobs in Redis, and how the script that does it is told (``scripts.finish.FINISH``)."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from arqonce.wire.keys import EXPIRY, to_ms
from arqonce.work import Claim, Ended, GivenBack, Job, Outcome, Postponed

KEEP_ATTEMPTS = timedelta(days=1)
"""How long attempts are remembered of a job that does not come back (arq's number)."""

LIFETIMES = (to_ms(EXPIRY), to_ms(KEEP_ATTEMPTS))
"""Arguments of scripts: how long a message and a count of attempts are kept."""

OVER = frozenset({"done", "first"})
"""Outcomes after which the job is over."""


class GiveUp(NamedTuple):
    """What becomes of a claimed job: made by ``end``, ``postpone`` and ``give_back``."""

    claim: Claim
    outcome: str
    value: int | bytes
    """The result, the delay in ms, or the score."""

    counts: bool = True
    keep_ms: int = 0
    held_ms: int = 0
    permits: Sequence[str] = ()
    """The keys of those that it gives back. The start that a rate limit has counted is given back only by a job that
    has certainly not begun."""

    @property
    def group(self) -> tuple[str, str, int, int, int, str]:
        """What is said once for all jobs that have it in common."""
        attempts = 0 if self.outcome in OVER else self.claim.attempt - (not self.counts)
        if self.outcome in {"later", "expiring"}:
            attempts -= self.claim.excused  # an attempt that has ended clears the job
        return (self.outcome, self.claim.owner, attempts, self.keep_ms, self.held_ms, self.claim.queue)


def end(
    claim: Claim,
    result: bytes | None,
    *,
    keep: timedelta | None,
    held: timedelta | None = None,
    is_fenced: bool = True,
) -> GiveUp:
    """Remove the job from the queue and keep its result, for ever if ``keep`` is ``None``.

    Unless it ``is_fenced``, also if another worker has the job by now, and it has the same message.
    """
    keep_ms = 0 if keep is None else _kept_ms(keep)
    if is_fenced:
        return GiveUp(claim, "done", result or b"", keep_ms=keep_ms, held_ms=_held_ms(held))
    digest = hashlib.sha1(claim.message or b"", usedforsecurity=False).hexdigest().encode()
    return GiveUp(claim, "first", digest + (result or b""), keep_ms=keep_ms, held_ms=_held_ms(held))


def postpone(
    claim: Claim, delay: timedelta, *, counts: bool = True, held: timedelta | None = None, expires: bool = False
) -> GiveUp:
    """Put the job back, due after ``delay``. Its message is kept for as long, unless it ``expires`` when it would."""
    return GiveUp(claim, "expiring" if expires else "later", to_ms(delay), counts=counts, held_ms=_held_ms(held))


def give_back(claim: Claim) -> GiveUp:
    """Put the job back where it was, as if it had not been started."""
    return GiveUp(claim, "back", claim.score, counts=False)


def give_up(job: Job, outcome: Outcome, claim: Claim) -> GiveUp:
    """Say in the queue's terms what becomes of the job, under the claim that it has by now; it is one attempt."""
    first = job.claim
    if claim is not first:
        claim = claim._replace(attempt=first.attempt, score=first.score, excused=first.excused)
    if isinstance(outcome, Ended):
        given = end(claim, outcome.result, keep=outcome.keep, held=job.held, is_fenced=outcome.is_fenced)
    elif isinstance(outcome, Postponed):
        given = postpone(claim, outcome.delay, counts=outcome.counts, held=job.held, expires=outcome.expires)
    else:
        given = give_back(claim)
    if not job.permits:
        return given
    has_begun = not isinstance(outcome, GivenBack) or outcome.has_begun
    return given._replace(permits=[permit.key for permit in job.permits if not (permit.per_ms and has_begun)])


@lru_cache
def _kept_ms(keep: timedelta) -> int:
    return max(1, to_ms(keep))


def _held_ms(held: timedelta | None) -> int:
    return 0 if held is None else to_ms(held)


def arguments_of(jobs: Sequence[GiveUp], names: Sequence[str]) -> list[Any]:
    """Return the arguments of the script that ends these attempts. ``names`` are those of the queues."""
    freed = [part for at, job in enumerate(jobs, 1) for permit in job.permits for part in (at, permit)]
    return [*LIFETIMES, len(freed) // 2, *_arguments(jobs, names), *freed]


def _arguments(jobs: Sequence[GiveUp], names: Sequence[str]) -> Iterator[Any]:
    for (*group, queue), found in groupby(jobs, key=attrgetter("group")):
        listed = list(found)
        yield names.index(queue) + 1
        yield from group
        yield len(listed)
        for job in listed:
            yield job.claim.id
            yield job.value
