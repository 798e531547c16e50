"""Shows a service's functions to Sentry as arq's own worker does, if the service uses its integration for arq.

That integration replaces ``create_worker`` of arq, to see the errors of functions, and ``Worker.run_job``, to open a
transaction for each job. Our worker calls neither. So it has its functions wrapped by the one, and does here what the
other does. This module is loaded only where the service has loaded ``sentry_sdk``, which is no dependency of ours.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import tzinfo
from typing import Any

import arq.worker
import sentry_sdk
import structlog
from arq.cron import CronJob
from arq.worker import Function
from sentry_sdk.integrations.logging import ignore_logger

from arqonce.arq.functions import FunctionJob, Functions, FunctionSettings
from arqonce.work import Claim, Outcome

_NAME = "unknown arq task"
"""Of a job's transaction until its function has begun: the integration's, which then gives it the function's name."""

_OP = "queue.task.arq"
_ORIGIN = "auto.queue.arq"
_QUEUE = "messaging.destination.name"


_LEAST = (2, 20)
"""The oldest sentry-sdk that was seen to work. To 2.0 the transaction's origin is an error, which would fail jobs."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.sentry")


def is_active() -> bool:
    """Return whether the service uses the integration for arq; log that its version is too old."""
    if tuple(map(int, sentry_sdk.VERSION.split(".")[:2])) < _LEAST:
        least = ".".join(map(str, _LEAST))
        _log.warning("Sentry sees no jobs: install a later sentry-sdk", found=sentry_sdk.VERSION, least=least)
        return False
    return sentry_sdk.get_client().get_integration("arq") is not None


class WatchedFunctions(Functions):
    """Runs functions and cron jobs, seen by Sentry."""

    def __init__(
        self, functions: Mapping[str, Function | CronJob], settings: FunctionSettings, timezone: tzinfo | None
    ) -> None:
        """Run these. Logged failures are no events: as in arq, the integration reports the errors themselves."""
        super().__init__(_through_create_worker(functions, settings.queue_name, timezone), settings)
        ignore_logger("arqonce.arq.functions")

    def open(self, claim: Claim) -> FunctionJob:
        """Read a claimed job."""
        return _WatchedJob(self, claim)


def _through_create_worker(
    functions: Mapping[str, Function | CronJob], queue: str, timezone: tzinfo | None
) -> Mapping[str, Function | CronJob]:
    """Return copies of the functions as the integration has wrapped them: it changes what it is given."""
    copies = [replace(function) for function in functions.values()]
    settings = {
        "functions": [function for function in copies if isinstance(function, Function)],
        "cron_jobs": [function for function in copies if isinstance(function, CronJob)],
        "queue_name": queue,
        "timezone": timezone,
        "handle_signals": False,
    }
    return arq.worker.create_worker(settings).functions  # the worker itself is never run


class _WatchedJob(FunctionJob):
    """One attempt of one job, in a scope and a transaction of its own."""

    _scope: "sentry_sdk.Scope | None" = None

    async def run(self) -> Outcome:
        """Run one attempt."""
        with sentry_sdk.isolation_scope() as self._scope:
            self._scope.clear_breadcrumbs()
            with self._transaction():
                try:
                    return await super().run()
                except asyncio.CancelledError as error:  # an abort or the worker's end: in arq no error of the job's
                    cancelled = error
            raise cancelled

    async def recorded(self) -> None:
        """Call the last hook in the job's scope; its transaction has ended."""
        if self._scope is None:
            return await super().recorded()
        with sentry_sdk.scope.use_isolation_scope(self._scope):
            sentry_sdk.get_current_scope().set_transaction_name(self.name)
            return await super().recorded()

    def _transaction(self) -> AbstractContextManager[Any]:
        queue = self.claim.queue
        if _streams():
            from sentry_sdk.traces import start_span  # noqa: PLC0415 - versions that cannot stream have none

            span = start_span(name=_NAME, attributes={"sentry.op": _OP, "sentry.origin": _ORIGIN}, parent_span=None)
            span.set_attribute("sentry.segment.name.source", "task")
            span.set_attribute("messaging.message.id", self._id)
            span.set_attribute(_QUEUE, queue)
            return span
        transaction = sentry_sdk.start_transaction(name=_NAME, op=_OP, source="task", origin=_ORIGIN, status="ok")
        transaction.set_data(_QUEUE, queue)
        return transaction


def _streams() -> bool:
    """Return whether spans are sent as they end, instead of transactions."""
    options = sentry_sdk.get_client().options
    found = options.get("trace_lifecycle") or (options.get("_experiments") or {}).get("trace_lifecycle")
    return bool(found == "stream")
