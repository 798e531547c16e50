"""The service under load while its workers die."""

import asyncio
import random
import signal
from collections import Counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker, WorkerProcess, wait_until_async
from tests.web.conftest import StartWeb, WebProcess

_CLIENTS, _REQUESTS, _KILLS = 12, 40, 6


async def _send(service: WebProcess, client: int, accepted: dict[str, str], statuses: Counter[int]) -> None:
    """Store people one by one, some of them waited for; send again under the same key what was refused with 503."""
    for number in range(_REQUESTS):
        name = f"p{client}-{number}"
        headers = {"Idempotency-Key": f"k-{name}"} | ({"Prefer": "wait=1"} if number % 4 == 0 else {})
        while True:
            answer = await service.ask("POST", "/users", json={"name": name}, headers=headers)
            statuses[answer.status] += 1
            if answer.status in {201, 202}:
                accepted[name] = headers["Idempotency-Key"]
                break
            await asyncio.sleep(float(answer.headers.get("Retry-After", 0.1)) / 10)
        statuses[(await service.get("/user", params={"name": name})).status] += 1


async def _kill(start_worker: StartWorker, workers: list[WorkerProcess], busy: "asyncio.Future[list[None]]") -> int:
    """Kill workers in the middle of their work, and start others, for as long as requests come but a few times."""
    kills = 0
    while kills < _KILLS or not busy.done():
        await asyncio.sleep(random.uniform(0.1, 0.6))
        if kills < _KILLS:
            victim = workers.pop(0)
            victim.process.send_signal(signal.SIGKILL if kills % 3 else signal.SIGTERM)
            workers.append(await asyncio.to_thread(start_worker, WORKER_LEASE="2s"))
            kills += 1
    return kills


async def test_workers_that_die_cost_no_request_and_no_user(
    start_web: StartWeb, start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """No 5xx but the 503 of a full queue; in the end every accepted user is there exactly once."""
    service = start_web(WEB_MAX_QUEUED="150")
    workers = [start_worker(WORKER_LEASE="2s") for _ in range(2)]
    accepted: dict[str, str] = {}
    statuses: Counter[int] = Counter()

    load = asyncio.gather(*(_send(service, client, accepted, statuses) for client in range(_CLIENTS)))
    kills = await _kill(start_worker, workers, load)
    await load

    async def stored() -> Counter[str]:
        async with sessions() as session:
            return Counter(await session.scalars(text("SELECT name FROM users")))

    async def are_all_there() -> bool:
        return len(await stored()) >= _CLIENTS * _REQUESTS

    await wait_until_async(are_all_there, 60)
    states = {(await service.get(f"/jobs/{key}")).json["status"] for key in accepted.values()}

    assert set(statuses) <= {200, 201, 202, 404, 503}, statuses
    assert await stored() == Counter(dict.fromkeys(accepted, 1))
    assert (len(accepted), states, kills) == (_CLIENTS * _REQUESTS, {"succeeded"}, _KILLS)
