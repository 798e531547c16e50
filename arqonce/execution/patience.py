"""Tells for how long a fault that only one connection met is not held against a job. Knows no server.

A gate that is open says that the server can be written to, by a connection of its own. Another one may have led to an
old primary, or broken when the server was switched, or have met the end of the disk: no attempt of the job's. But a job
can also bring such a fault about, each time it runs, and must come to its end all the same.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta

from arqonce.database.faults import is_fault_of_server, is_lost_connection

_LONGEST = timedelta(minutes=2)
"""How long faults of servers are not counted that the gate does not see."""

_MOST_LOSSES = 3
"""How many lost connections are not counted: a failover costs one or two; a handler may end its connection itself."""

_MOST_JOBS = 10_000
"""Of how many jobs we know; beyond that the oldest are forgotten, and begin anew."""


@dataclass
class _Faults:
    since: float
    losses: int = 0


class Patience:
    """The faults that were not counted yet, by job."""

    def __init__(self) -> None:
        """Know of none."""
        self._faults: OrderedDict[str, _Faults] = OrderedDict()

    def lasts(self, job_id: str, error: BaseException) -> bool:
        """Say whether this failure of the job is not to count."""
        is_loss = is_lost_connection(error)
        if not is_loss and not is_fault_of_server(error):
            return False
        now = time.monotonic()
        faults = self._faults.setdefault(job_id, _Faults(now))
        while len(self._faults) > _MOST_JOBS:
            self._faults.popitem(last=False)
        faults.losses += is_loss
        return faults.losses <= _MOST_LOSSES and now - faults.since < _LONGEST.total_seconds()

    def forget(self, job_id: str) -> None:
        """Begin anew with this job: it has ended."""
        self._faults.pop(job_id, None)
