"""What is asked of Redis about permits, and what it answers (``scripts.limits``)."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from arqonce.work import Claim, Permit


class Admission(IntEnum):
    """What becomes of a claimed job that needs permits."""

    PARKED = 0
    """It is nobody's, waits for a permit, and is due again when there is one."""

    STARTS = 1
    """It has its permits."""

    RETURNS = 2
    """It has none, and is to be given back: it has no slot, or its lease has ended."""


class Applicant(NamedTuple):
    """A claimed job that needs permits."""

    claim: Claim
    permits: Sequence[Permit]

    has_slot: bool
    """Whether it is to start now. If it has no slot, it is parked if it could not start, and else given back."""


def written(applicants: Sequence[Applicant], names: Sequence[str]) -> Iterator[Any]:
    """Yield the arguments of the script. ``names`` are those of the queues."""
    for claim, permits, has_slot in applicants:
        yield names.index(claim.queue) + 1
        yield claim.id
        yield claim.owner
        yield claim.score
        yield int(has_slot)
        yield len(permits)
        for permit in permits:
            yield from permit
