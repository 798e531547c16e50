"""Connects the parts of a worker or a relay with what its port of operations shows. The parts know nothing of it."""

from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import QueuePool

from arqonce.metrics import families
from arqonce.metrics.store import Store
from arqonce.operations.process import Operations
from arqonce.operations.queue_figures import QueueReader
from arqonce.relay.relay import Relay
from arqonce.schedules.scheduler import Scheduler
from arqonce.trouble import AwayTime

if TYPE_CHECKING:  # a relay, which has none of these, shows its figures without loading them
    from arqonce.arq.worker import Worker
    from arqonce.execution.attempt import Dispatcher
    from arqonce.process.lifecycle import Lifecycle


def show_worker(
    operations: Operations,
    worker: "Worker",
    redis: Redis,
    *,
    dispatcher: "Dispatcher | None",
    lifecycle: "Lifecycle | None",
) -> None:
    """Show a worker that has started; one without a database has neither ``dispatcher`` nor ``lifecycle``."""
    relay = None if lifecycle is None else lifecycle.relay
    if lifecycle is not None and lifecycle.scheduler is not None:
        operations.add(partial(write_slots, lifecycle.scheduler))
    registered = () if worker.registry_work is None else worker.registry_work.registry.names
    operations.know([*worker.functions, *registered])
    _show_servers(operations, worker, dispatcher, relay)
    operations.add(partial(_write_worker, worker, dispatcher))
    operations.checks["accepting"] = lambda: not worker.is_stopping
    sessions = None if dispatcher is None else dispatcher.sessions
    if sessions is not None:
        show_pool(operations, sessions)
    if relay is not None:
        operations.add(partial(_write_relay, relay))
    operations.reader = QueueReader(redis, worker.queues.names, sessions)
    operations.started()


def show_relay(operations: Operations, relay: Relay, redis: Redis, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Show a process that relays and runs no jobs."""
    for server, time_away in relay.away.items():
        operations.show_server(server, lambda time_away=time_away: [time_away])  # type: ignore[misc] # its value now
    operations.add(partial(_write_relay, relay))
    show_pool(operations, sessions)
    operations.reader = QueueReader(redis, relay.queues, sessions)
    operations.started()


def show_pool(operations: Operations, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Show the pool of connections to PostgreSQL; nothing of an application's own engine that keeps none."""
    engine: AsyncEngine = sessions.kw["bind"]

    def write(store: Store) -> None:
        pool = engine.pool  # looked up each time: disposing of an engine gives it another
        if not isinstance(pool, QueuePool):  # NullPool, as behind PgBouncer
            return
        store.set(families.CONNECTIONS, pool.checkedin(), "idle")
        store.set(families.CONNECTIONS, pool.checkedout(), "used")
        store.set(families.MOST_CONNECTIONS, pool.size())

    operations.add(write)


def _show_servers(
    operations: Operations, worker: "Worker", dispatcher: "Dispatcher | None", relay: Relay | None
) -> None:
    """Show both servers as the engine and the relay see them: the relay looks at PostgreSQL also while no job runs."""

    def redis_times() -> list[AwayTime]:
        engine = [] if worker.engine is None else [worker.engine.outage.away]
        return engine + ([] if relay is None else [relay.away["redis"]])

    operations.show_server("redis", redis_times)
    if dispatcher is not None:
        times = [dispatcher.gate.away, *([] if relay is None else [relay.away["postgresql"]])]
        operations.show_server("postgresql", lambda: times)


def _write_worker(worker: "Worker", dispatcher: "Dispatcher | None", store: Store) -> None:
    if worker.engine is not None:
        slots = worker.engine.runs.slots
        store.set(families.IN_PROGRESS, len(worker.engine.runs.claims))
        store.set(families.SLOTS, slots.most)
        store.set(families.SLOTS_USED, slots.most - slots.free)
    answered = 0 if worker.records is None else worker.records.answered
    store.set(families.ANSWERED, answered + (0 if dispatcher is None else dispatcher.record.answered))


def write_slots(scheduler: Scheduler, store: Store) -> None:
    """Write what a scheduler has decided."""
    for (name, outcome), count in scheduler.slots.items():
        store.set(families.SLOTS_OF_SCHEDULES, count, name, outcome)


def _write_relay(relay: Relay, store: Store) -> None:
    store.set(families.GIVEN, relay.counts.given)
    store.set(families.GIVEN_AGAIN, relay.counts.again)
    store.set(families.EXPIRED, relay.counts.expired)
    store.set(families.EPOCHS, relay.counts.epochs)
