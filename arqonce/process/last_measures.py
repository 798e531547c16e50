"""What the process does when it must end although something holds it: log the cause and put back its jobs.

Runs in a thread, because the event loop may be blocked for ever, and therefore uses its own connection to Redis.
"""

import sys
import threading
from collections.abc import Collection

import structlog
from redis.exceptions import RedisError

from arqonce.arq.worker import Worker
from arqonce.connection.redis import build_sync_redis
from arqonce.engine.renewals import give_back_now
from arqonce.execution.places import handlers_place, places_of_frame
from arqonce.failures import QueueUnavailableError
from arqonce.settings.queue import QueueSettings
from arqonce.work import Claim

_MOST_NAMES = 20
"""Most job ids in the log line."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.last_measures")


def take_last_measures(queue: QueueSettings, worker: Worker) -> None:
    """Log which jobs and threads hold the process and where. Put the jobs back; the attempt does not count."""
    claims = worker.unended_claims()
    _log.error(
        "these hold on to the process",
        job_ids=[claim.job_id for claim in claims][:_MOST_NAMES],
        jobs=len(claims),
        threads=[thread.name for thread in threading.enumerate() if not thread.daemon],
        at=_place_of_the_loop(),
    )
    if claims:
        _give_back(queue, claims)


def _place_of_the_loop() -> str | None:
    """Return the place in the code where the main thread is, which runs the event loop."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the documented way
    if frame is None:
        return None
    places = places_of_frame(frame)
    return str(handlers_place(places) or places[-1])


def _give_back(queue: QueueSettings, claims: Collection[Claim]) -> None:
    url, password = queue.url.get_secret_value(), queue.plain_password
    try:
        with build_sync_redis(url, password=password, max_connections=1) as redis:
            given = give_back_now(redis, claims)
    except (RedisError, OSError, QueueUnavailableError) as error:
        _log.error("jobs are left to their leases", jobs=len(claims), reason=type(error).__name__)
    else:
        _log.info("jobs were given back", jobs=given)
