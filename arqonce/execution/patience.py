"""Decides how long server faults of single connections do not count as attempts. Knows no server.

An open gate means that the gate's own connection can write. The job's connection may still have led to an old primary,
been lost in a failover, or met a full disk; such an attempt does not count. Neither does one that PostgreSQL ended for
the sake of other transactions (40001): where SERIALIZABLE is the default, that is every second attempt of jobs that run
at once. Nor one that met a migration: it spoils what each connection has prepared. But a job can also cause such a
fault each time it runs, and must not be retried for ever. So there are limits.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from arqonce.database.faults import is_conflict, is_fault_of_server, is_lost_connection

_LONGEST = timedelta(minutes=2)
"""How long, from its first such fault, a job's server faults do not count."""

_MOST_LOSSES = 3
"""How many lost connections do not count. A failover costs one or two; a handler may close its connection itself."""

_MOST_JOBS = 10_000
"""How many jobs are remembered; beyond that the oldest are forgotten, and their counts begin anew."""


@dataclass
class _Faults:
    since: float
    losses: int = 0


class Patience:
    """Server faults that did not count, by job."""

    def __init__(self) -> None:
        """Begin without faults."""
        self._faults: OrderedDict[str, _Faults] = OrderedDict()

    def lasts(self, job_id: str, error: BaseException) -> bool:
        """Record the failure; return whether it is a server fault that does not count as an attempt yet."""
        is_loss = is_lost_connection(error)
        if not (is_loss or is_fault_of_server(error) or is_conflict(error)):
            return False
        now = time.monotonic()
        faults = self._faults.setdefault(job_id, _Faults(now))
        while len(self._faults) > _MOST_JOBS:
            self._faults.popitem(last=False)
        faults.losses += is_loss
        return faults.losses <= _MOST_LOSSES and now - faults.since < _LONGEST.total_seconds()

    def forget(self, job_id: str) -> None:
        """Forget the faults of a job that has ended."""
        self._faults.pop(job_id, None)
