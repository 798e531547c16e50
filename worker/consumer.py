"""The worker class: arq's, made to survive a lost Redis, hostile job ids and its own shutdown.

Overrides parts of arq 0.28, which is why the version is pinned; each override says what arq does instead.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from signal import Signals
from typing import Any, cast

import structlog
from arq.constants import abort_jobs_ss
from arq.worker import Worker
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from jobs.codec import encode
from jobs.connection import build_redis, is_of_wrong_type, is_outage
from jobs.registry import Registry
from jobs.wire import IN_PROGRESS_KEY, RETRY_KEY, is_job_id
from worker.arq_functions import MARGIN, MessageReader, build_functions
from worker.gate import DatabaseGate
from worker.guarded_redis import GuardedRedis
from worker.lifecycle import Lifecycle
from worker.settings import Settings

_RECONNECT_EVERY = timedelta(milliseconds=500)
"""How long to wait between looks at a server that is gone."""

_CLOSE_LIMIT = timedelta(seconds=5)
"""How long the end waits for Redis to take the last results and keys. Longer would outlast supervisors' patience."""

_RETRIES = 6
"""How often redis-py repeats a command by itself: about two seconds, a restart of Redis."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("worker.consumer")


def build_arq_redis(settings: Settings, registry: Registry) -> GuardedRedis:
    """Construct arq's client over our pool: with time limits, JSON, and retries after a lost connection."""
    redis = build_redis(
        settings.queue.url.get_secret_value(),
        GuardedRedis,
        password=settings.queue.plain_password,
        max_connections=settings.worker.max_jobs + 10,
        retries=_RETRIES,
    )
    redis.job_serializer = encode
    redis.job_deserializer = MessageReader(registry)
    redis.default_queue_name = settings.worker.queue
    return redis


def worker_arguments(settings: Settings, registry: Registry, redis: GuardedRedis) -> dict[str, Any]:
    """Return the arguments for ``arq.Worker``: the same for our worker class and for arq's own."""
    lifecycle = Lifecycle(settings)
    return {
        "functions": build_functions(registry),
        "queue_name": settings.worker.queue,
        "redis_pool": redis,
        # Job ids whose attempt does not count: only our class gives it back.
        "ctx": {"uncounted": set()},
        "on_startup": lifecycle.startup,
        "on_shutdown": lifecycle.shutdown,
        "job_serializer": encode,
        "job_deserializer": redis.job_deserializer,
        "max_jobs": settings.worker.max_jobs,
        "job_timeout": MARGIN,  # of refuse_message; every job has its own
        "job_completion_wait": settings.worker.shutdown_grace.total_seconds(),
        "keep_result": settings.worker.keep_result,
        "poll_delay": settings.worker.poll_interval,
        "health_check_interval": 10,
        "allow_abort_jobs": True,
        "log_results": False,
    }


class UsersWorker(Worker):
    """arq's worker, which lives on where arq's exits.

    A claim is a lease of seconds that is renewed while the job runs. arq's lasts as long as the longest timeout of all
    jobs, is never renewed, and so keeps the jobs of a killed worker locked for minutes. Two workers that believe to own
    one job, because one of them was stopped for longer than its lease, do no harm: see the receipts in ``dispatch``.
    """

    def __init__(self, *args: Any, lease: timedelta, **kwargs: Any) -> None:  # noqa: ANN401 - arq's arguments
        super().__init__(*args, **kwargs)
        self._lease = lease
        self._heartbeat: asyncio.Task[None] | None = None
        self.in_progress_timeout_s = lease.total_seconds()

    @property
    def pool(self) -> GuardedRedis:
        """Arq's client, with its guards."""
        return cast("GuardedRedis", self._pool)

    async def main(self) -> None:
        """Work, and renew the leases meanwhile and until the last job has ended."""
        self._heartbeat = asyncio.create_task(self._renew_leases(), name="heartbeat")
        await super().main()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            with suppress(RedisError, OSError):  # the main loop tells of it
                async with self.pool.pipeline(transaction=False) as pipe:
                    for job_id in self.tasks:
                        pipe.pexpire(IN_PROGRESS_KEY + job_id, self._lease)
                    await pipe.execute()

    _is_stopping = False
    _is_ending = False
    _trouble: str | None = None
    _claim: asyncio.Task[None] | None = None

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Claim jobs one by one, none after the signal to stop.

        arq loses a slot at each lost connection, and leaves a job locked whose claim is cut off by the worker's end.
        """
        for job_id in job_ids:
            if not self.allow_pick_jobs or not self.ctx["dispatcher"].gate.is_open:
                return
            self._claim = asyncio.create_task(super().start_jobs([job_id]))
            try:
                await asyncio.shield(self._claim)
            except (RedisError, OSError):
                self._release_sem_dec_counter_on_complete()
                raise

    async def run_job(self, job_id: str, score: int) -> None:
        """Run a job. arq dies of keys of another type, again whenever their lock has expired."""
        try:
            await super().run_job(job_id, score)
        except ResponseError as error:
            if not is_of_wrong_type(error):
                raise
            await self.pool.refuse(self.queue_name, job_id.encode(), f"the job's keys in Redis are unusable: {error}")

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel what is to be aborted. arq dies of an id that is not UTF-8, at each start anew."""
        try:
            await super()._cancel_aborted_jobs()
        except UnicodeDecodeError:
            await remove_hostile_aborts(self.pool)

    async def _poll_iteration(self) -> None:
        """Take one turn. arq ends the process at the first error of Redis; we wait until it is back."""
        if self._is_ending:
            # On Python 3.11 a cancellation can be lost in redis-py, whose time limit uses wait_for.
            raise asyncio.CancelledError
        try:
            await self._wait_for_database()
            await super()._poll_iteration()
        except (RedisError, OSError) as error:
            trouble = "Redis is gone: waiting for it" if is_outage(error) else "Redis refuses a command"
            self._tell_trouble(trouble, error)
            await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
        else:
            self._tell_trouble(None)

    def _tell_trouble(self, trouble: str | None, error: Exception | None = None) -> None:
        """Log a change, not each turn of an outage."""
        if trouble is not None and trouble != self._trouble:
            _log.error(trouble, exc_info=error, reason=str(error))
        if trouble is None and self._trouble is not None:
            _log.info("Redis is back")
        self._trouble = trouble

    async def _wait_for_database(self) -> None:
        """While PostgreSQL is gone, take turns slowly and claim nothing: a claimed job could only fail."""
        gate: DatabaseGate = self.ctx["dispatcher"].gate
        if not gate.is_open and not await gate.check():
            await asyncio.sleep(_RECONNECT_EVERY.total_seconds())

    async def finish_job(  # noqa: PLR0913, PLR0917 - arq's signature
        self,
        job_id: str,
        finish: bool,  # noqa: FBT001 - arq's signature
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,  # noqa: FBT001 - arq's signature
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """Record the outcome, however long Redis is gone. arq loses it, and runs the job again."""
        is_given_back = self._is_stopping and not finish and incr_score is None
        if is_given_back or job_id in self.ctx["uncounted"]:
            # Neither a shutdown nor an outage is a failure of the job: the attempt does not count.
            # Before the job is free again, or another worker's count would suffer.
            self.ctx["uncounted"].discard(job_id)
            await self._until_redis_answers(lambda: self.pool.decr(RETRY_KEY + job_id))
        arguments = (finish, result_data, result_timeout_s, keep_result_forever, incr_score, keep_in_progress)
        await self._until_redis_answers(lambda: super(UsersWorker, self).finish_job(job_id, *arguments))

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        """Record the failure, however long Redis is gone."""
        await self._until_redis_answers(lambda: super(UsersWorker, self).finish_failed_job(job_id, result_data))

    async def _until_redis_answers(self, command: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await command()
            except (RedisError, OSError) as error:
                if not is_outage(error):
                    raise  # the job's lease ends, and its receipt answers
                await asyncio.sleep(_RECONNECT_EVERY.total_seconds())
            else:
                return

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Stop claiming and let running jobs end within the grace; a second signal ends them at once."""
        if self._is_stopping:
            self.handle_sig(signum)
            return
        self._is_stopping = True
        super().handle_sig_wait_for_completion(signum)

    def handle_sig(self, signum: Signals) -> None:
        """End at once."""
        self._is_ending = True
        super().handle_sig(signum)

    async def _wait_for_tasks_to_complete(self, signum: Signals) -> None:
        """Let running jobs end within the grace, then end the main loop."""
        await super()._wait_for_tasks_to_complete(signum)
        self._is_ending = True

    async def close(self) -> None:
        """End jobs, hooks and connections, each whatever became of the one before. arq stops at the first error."""
        self._is_stopping = True
        try:
            await self._end_jobs()
            if self._heartbeat is not None:
                self._heartbeat.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_LIMIT.total_seconds()):
                    await self.pool.delete(self.health_check_key)
        finally:
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
            await self.pool.aclose(close_connection_pool=True)

    async def _end_jobs(self) -> None:
        if self._claim is not None:
            await asyncio.wait([self._claim], timeout=_CLOSE_LIMIT.total_seconds())
        if not self.tasks:
            return
        _, running = await asyncio.wait(self.tasks.values(), timeout=_CLOSE_LIMIT.total_seconds())
        for task in running:
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def remove_hostile_aborts(redis: Redis) -> None:
    """Remove requests to abort what cannot be a job: arq dies of an id that is not UTF-8. One or two round trips."""
    found = await redis.zrange(abort_jobs_ss, 0, -1)
    if hostile := [job_id for job_id in found if not is_job_id(job_id.decode("utf-8", "replace"))]:
        await redis.zrem(abort_jobs_ss, *hostile)
        _log.warning("requests to abort refused", count=len(hostile))
