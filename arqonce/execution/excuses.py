"""Decides whether an attempt has failed by its job's fault, or by the database's. The latter does not count."""

from arqonce.backoff import backoff
from arqonce.execution.gate import DatabaseGate
from arqonce.execution.patience import Patience
from arqonce.execution.record import AFTER_OUTAGE
from arqonce.execution.verdict import RetryLater

_FAULT = 2
"""The attempt whose ``backoff``, up to a second, follows a fault that the gate does not detect. Other jobs may run
meanwhile, and at random times those that were in conflict do not meet again."""


class Excuses:
    """What excuses failed attempts: an outage, which the gate detects, or for a while other faults of a server."""

    def __init__(self, gate: DatabaseGate) -> None:
        """Begin without faults."""
        self._gate = gate
        self._patience = Patience()

    async def require_none(self, job_id: str, error: Exception, *, since: float) -> None:
        """Return if the job caused the failure. ``since`` is the attempt's start, by ``time.monotonic()``.

        Raises:
            RetryLater: the database caused it: it could not be written to.
        """
        if await self._gate.explains(error, since=since):
            raise RetryLater(AFTER_OUTAGE, counts=False) from error
        if self._patience.lasts(job_id, error):
            raise RetryLater(backoff(_FAULT), counts=False) from error

    def forget(self, job_id: str) -> None:
        """Forget the faults of a job that has ended."""
        self._patience.forget(job_id)
