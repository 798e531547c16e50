"""What a process that only relays shows: the queue's figures, also where nobody serves it."""

import json
import sys

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import enqueue_in
from jobs import CreateUser
from tests.arqonce.operations.scrape import ask, port_of, scrape, value
from tests.conftest import StartWorker, wait_until
from tests.rights import Rights


async def _promise(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions.begin() as session:
        for at in range(3):
            await enqueue_in(session, CreateUser(name=f"User {at}"))


async def test_a_relay_shows_what_it_has_given_and_that_nobody_serves_the_queue(
    start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession], redis: Redis
) -> None:
    """With its readiness, and figures for scaling from zero."""
    await redis.ping()
    relay = start_worker(sys.executable, "-m", "worker", "relay", OPS_PORT="0")
    port = port_of(relay)
    await _promise(sessions)

    wait_until(lambda: value(scrape(port), "arqonce_relay_given_total") == 3, 20)
    wait_until(lambda: value(scrape(port), "arqonce_queue_waiting") == 3, 20)

    figures = scrape(port)
    names = ("queue_served", "promised_jobs", "relay_given_again_total", "redis_epochs_total", "server_up")
    assert [value(figures, f"arqonce_{name}") for name in names] == [0, 3, 0, 0, 2]
    assert (value(figures, "arqonce_queue_oldest_waiting_seconds") or 0) > 0
    assert ask(port, "/readyz")[:2] == (200, "ready\n")
    queue = json.loads(ask(port, "/queue.json").text)
    assert (queue["waiting"], queue["queues"]["arq:queue"]["promised"]) == (3, 3)
    assert queue["oldest_waiting_seconds"] > 0
    assert relay.stop() == 0


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_with_the_rights_of_a_relay_it_shows_the_ledger_and_who_serves_the_queue(
    start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession], redis: Redis, rights: Rights
) -> None:
    """But not what is queued, which it may not see."""
    await redis.ping()
    own = {"DATABASE_URL": rights.relay_database, "REDIS_URL": rights.relay_redis}
    relay = start_worker(sys.executable, "-m", "worker", "relay", OPS_PORT="0", **own)
    port = port_of(relay)
    await _promise(sessions)

    wait_until(lambda: value(scrape(port), "arqonce_promised_jobs") == 3, 20)

    figures = scrape(port)
    names = ("queue_served", "dead_letters", "promised_overdue", "queue_waiting")
    assert [value(figures, f"arqonce_{name}") for name in names] == [0, 0, 0, None]
    assert [ask(port, path).status for path in ("/readyz", "/queue.json")] == [200, 503]
    assert relay.stop() == 0
