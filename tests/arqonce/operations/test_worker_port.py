"""What a worker shows on its port of operations: real processes, real servers."""

import asyncio
import json
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from arqonce import JobClient
from jobs import CreateUser
from tests.arqonce.operations.kinds import NAME, Answer, TakeTurns
from tests.arqonce.operations.scrape import ask, parse, port_of, scrape, value
from tests.conftest import StartWorker, wait_until
from tests.docs.blocks import blocks_in
from tests.faults.observe import Sessions
from tests.faults.proxy import Proxy
from tests.tables import EMPTY_TABLES

SOON = timedelta(seconds=20)
TOKEN = "a-token-of-twenty-characters"  # noqa: S105 - of one test


@pytest.mark.parametrize("rights", ["all rights", "least rights"], indirect=True)
async def test_a_worker_counts_each_end_once(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """By kind and code, in batches and alone; what nobody knows has one label, whatever hostile producers name it."""
    async with sessions.begin() as session:
        await session.execute(EMPTY_TABLES)  # of letters of other tests
    worker = start_worker(OPS_PORT="0", WORKER_REGISTRY=NAME)
    port = port_of(worker)
    users = [CreateUser(name=f"User {at}", email=f"user{at % 300}@example.org") for at in range(301)]
    answers = [Answer(how=how) for how in ("well", "refuse", "fail")]
    handles = await client.enqueue_many([*users, *answers])
    await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles), return_exceptions=True)
    for at in range(50):
        await redis.set(f"arq:job:evil{at}", json.dumps({"t": 1, "f": f"evil-{at}", "a": [], "k": {}, "et": 0}))
    await redis.zadd("arq:queue", {f"evil{at}": 1 for at in range(50)})
    await asyncio.to_thread(wait_until, partial(_shows, port, "arqonce_dead_letters", 51), 20)

    figures = parse((await asyncio.to_thread(ask, port, "/metrics")).text)

    def count(name: str, **labels: str) -> float | None:
        return value(figures, f"arqonce_{name}", **labels)

    assert count("jobs_succeeded_total", kind="create_user") == 300
    assert count("jobs_refused_total", kind="create_user", code="email_taken") == 1
    assert count("jobs_refused_total", kind="answer", code="not_today") == 1
    assert count("jobs_dead_total", kind="answer", code="KeyError") == 1
    assert count("jobs_dead_total", kind="<unknown>", code="unknown_job") == 50
    assert count("jobs_claimed_total") == 301 + 3 + 1 + 50  # one failed and ran again
    assert count("jobs_retried_total") == 1
    assert count("job_wait_seconds_count") == 355
    assert count("job_completion_seconds_count") == 354
    assert count("run_jobs_sum", kind="create_user") == 301
    assert (count("run_jobs_count", kind="create_user") or 301) < 301
    assert (count("dead_letters", queue="arq:queue"), count("slots"), count("server_up")) == (51, 10, 2)
    kinds = {dict(labels).get("kind") for _, labels in figures} - {None}
    assert kinds == {
        "answer",
        "block",
        "linger",
        "take_turns",
        "create_user",
        "create_users",
        "find_user",
        "get_or_create_user",
        "<unknown>",
    }


async def test_what_waits_for_a_permit_is_counted(start_worker: StartWorker, client: JobClient, tmp_path: Path) -> None:
    """While one job of a limited kind runs, the others wait: that is no queue for which more workers would help."""
    port = port_of(start_worker(OPS_PORT="0", WORKER_REGISTRY=NAME))
    handles = await client.enqueue_many([TakeTurns(seconds=2, folder=str(tmp_path)) for _ in range(3)])
    await asyncio.to_thread(wait_until, partial(_shows, port, "arqonce_queue_parked", 2), 20)

    waiting = value(scrape(port), "arqonce_queue_waiting")
    await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
    await asyncio.to_thread(wait_until, partial(_shows, port, "arqonce_queue_parked", 0), 20)

    assert waiting == 2
    parked = value(scrape(port), "arqonce_jobs_parked_total", kind="take_turns") or 0
    assert parked >= 2


def test_probes_need_no_token_and_figures_do(start_worker: StartWorker) -> None:
    """The body names what is wrong; at the worker's end the port closes."""
    worker = start_worker(OPS_PORT="0", OPS_TOKEN=TOKEN)
    port = port_of(worker)

    statuses = [ask(port, path).status for path in ("/livez", "/readyz", "/metrics", "/queue.json")]

    assert statuses == [200, 200, 401, 401]

    def queue() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(ask(port, "/queue.json", Authorization=f"Bearer {TOKEN}").text)
        return found

    wait_until(lambda: queue()["queues"]["arq:queue"]["served"], 20)  # as soon as it has announced itself
    assert [queue()[name] for name in ("waiting", "oldest_waiting_seconds")] == [0, 0.0]
    (example,) = (json.loads(block.code) for block in blocks_in("docs/metrics.md") if block.kind == "json")
    shapes = [(set(found), set(found["queues"]["arq:queue"])) for found in (queue(), example)]
    assert shapes[0] == shapes[1]
    assert worker.stop() == 0


def _shows(port: int, name: str, expected: float | None) -> bool:
    return value(scrape(port), name) == expected


async def test_an_outage_leaves_a_worker_alive_and_not_ready(
    start_worker: StartWorker, redis_proxy: Proxy, postgres_proxy: Proxy
) -> None:
    """Each server that is away is named, its figures are missing, and a scrape takes no longer than it may."""
    worker = start_worker(OPS_PORT="0", **redis_proxy.environment, **postgres_proxy.environment)
    port = port_of(worker)
    for proxy, server, figure in (
        (postgres_proxy, "postgresql", "arqonce_promised_jobs"),
        (redis_proxy, "redis", "arqonce_queue_waiting"),
    ):
        proxy.is_closed = True
        proxy.cut()
        await asyncio.to_thread(wait_until, lambda: ask(port, "/readyz").status == 503, 20)
        began = time.monotonic()
        away, alive = await asyncio.to_thread(scrape, port), ask(port, "/livez").status

        assert (ask(port, "/readyz").text, alive) == (f"not ready: {server}\n", 200)
        assert time.monotonic() - began < 8
        await asyncio.to_thread(wait_until, partial(_shows, port, figure, None), 20)
        assert value(away, "arqonce_server_up", server=server) == 0
        assert (value(away, "arqonce_outage_seconds_total", server=server) or 0) > 0
        if server == "redis":
            assert ask(port, "/queue.json").status == 503
        proxy.heal()
        await asyncio.to_thread(wait_until, lambda: ask(port, "/readyz").status == 200, 20)
        await asyncio.to_thread(wait_until, partial(_shows, port, figure, 0), 20)
    assert worker.stop() == 0
