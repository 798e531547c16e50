"""What an examination finds: a value, a verdict, and the cure."""

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from arqonce.connection.clock import CLOCK_OFF, clock_offset

_FAR_OFF = timedelta(seconds=30)
"""A difference of clocks from which on it is harmful."""

_SOON = timedelta(days=21)
"""A certificate that expires sooner is to be renewed."""


class Verdict(StrEnum):
    """How a finding is to be taken, from the best to the worst."""

    WELL = "well"
    NOT_SEEN = "not seen"
    """Who asks may not look, or the server does not tell: neither good nor bad."""
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    """What was looked at, such as ``PostgreSQL: connections``."""

    verdict: Verdict
    value: str
    """What was found, in words for people. No person's data."""

    cure: str | None = None
    """What to do, if anything is to be done."""


@dataclass(frozen=True)
class Check:
    """One question. ``ask`` returns nothing if the question does not arise."""

    name: str
    ask: Callable[[], Awaitable[Finding | Sequence[Finding] | None]]


def well(check: str, value: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, Verdict.WELL, value)


def not_seen(check: str, why: str, cure: str | None = None) -> Finding:
    """Return a finding that could not be made."""
    return Finding(check, Verdict.NOT_SEEN, why, cure)


def judged(check: str, value: str, *, warning: str | None = None, failure: str | None = None) -> Finding:
    """Return a finding with the cure of a failure or of a warning, whichever is given; neither is well."""
    if failure is not None:
        return Finding(check, Verdict.FAILURE, value, failure)
    if warning is not None:
        return Finding(check, Verdict.WARNING, value, warning)
    return well(check, value)


def is_this_host(name: str) -> bool:
    """Return whether a server of this name is on this machine: what is sent to it cannot be read on the way."""
    return name in {"", "localhost", "127.0.0.1", "::1"} or name.startswith("/")


def compare_clocks(check: str, before: datetime, told: datetime, after: datetime) -> Finding:
    """Compare a server's time with ours before and after we asked: the round trip explains some difference."""
    off = timedelta(seconds=abs(clock_offset(told.timestamp(), before.timestamp(), after.timestamp())))
    value = f"{off.total_seconds():.1f} s from this machine's, beyond the round trip"
    cure = "let NTP set the clocks: due times, ages and leases are told by them"
    return judged(check, value, failure=cure if off > _FAR_OFF else None, warning=cure if off > CLOCK_OFF else None)


def judge_certificate(check: str, certificate: Any) -> Finding:  # noqa: ANN401 - ssl's dict, empty if it was not verified
    """Say for how long the server's certificate is valid."""
    if not certificate or "notAfter" not in certificate:
        return judged(check, "in use, but the server is not verified", warning="verify it: anybody may stand between")
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    left = ends - datetime.now(UTC)
    return judged(check, f"the certificate is valid for {left.days} days", warning="renew it" if left < _SOON else None)
