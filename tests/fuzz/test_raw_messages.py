"""Hundreds of hostile messages in one go through a running worker, in both ways of running it."""

import json
import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from arqonce import JobClient
from jobs import CreateUser
from tests.conftest import StartWorker, WorkerProcess, wait_until_async
from tests.faults.observe import Sessions, letters
from tests.redis_keys import keys_of_jobs
from tests.worker.test_end_to_end import BOTH, COMMANDS, SOON

GOOD: dict[str, Any] = {"t": None, "f": "create_user", "a": [], "k": {"name": "Fuzz"}, "et": 0}
ODD = [None, True, -1, 2**63, 10**400, 1.5, 1e308, "", "x", "\x00", "\u202e", "x" * 70_000, [], [1], {}, {"a": 1}]
"""Values that a field's type may not expect."""

FIELDS = ["t", "f", "a", "k", "et", "s", "r", "q", "id", "\x00", "ctx", ""]


class _Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._trace),)


def _messages(chance: random.Random, count: int, trace: Path) -> list[bytes]:
    makers: list[Callable[[random.Random], bytes]] = [_wrong_field, _wrong_argument, _broken, _noise]
    bomb = pickle.dumps(_Bomb(trace))
    return [bomb if chance.random() < 0.1 else chance.choice(makers)(chance) for _ in range(count)]


def _wrong_field(chance: random.Random) -> bytes:
    return json.dumps(GOOD | {chance.choice(FIELDS): chance.choice(ODD) for _ in range(chance.randint(1, 3))}).encode()


def _wrong_argument(chance: random.Random) -> bytes:
    name = chance.choice(["create_user", "get_or_create_user", "find_user", "create_users"])
    fields = {chance.choice(["name", "email", "id", "users", "ctx", "\x00", "ü"]): chance.choice(ODD) for _ in range(2)}
    return json.dumps(GOOD | {"f": name, "k": fields, "a": chance.sample(ODD, chance.randint(0, 2))}).encode()


def _broken(chance: random.Random) -> bytes:
    data = bytearray(json.dumps(GOOD).encode())
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randint(0, 300))


@pytest.fixture
def worker(command: str, start_worker: StartWorker) -> WorkerProcess:
    """Start a worker in the way that the test names."""
    return start_worker(*COMMANDS[command])


@BOTH
async def test_three_hundred_hostile_messages_end_and_the_worker_lives(
    worker: WorkerProcess, client: JobClient, redis: Redis, sessions: Sessions, tmp_path: Path
) -> None:
    """Each ends as a result or a dead letter, the queue is empty, no key is left, and no pickle was read."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown if the test fails
    chance = random.Random(seed)
    messages = {f"m{number}": data for number, data in enumerate(_messages(chance, 300, tmp_path / "trace"))}
    hostile_ids = [chance.randbytes(chance.randint(1, 30)) for _ in range(30)]
    async with redis.pipeline(transaction=True) as pipe:
        for job_id, data in messages.items():
            pipe.set(f"arq:job:{job_id}", data, px=600_000)
            pipe.zadd("arq:queue", {job_id: time.time() * 1000})
        for hostile_id in hostile_ids:
            pipe.set(b"arq:job:" + hostile_id, chance.choice(list(messages.values())), px=600_000)
            pipe.zadd("arq:queue", {hostile_id: time.time() * 1000})
        await pipe.execute()

    async def is_empty() -> bool:
        return not await redis.zcard("arq:queue")

    await wait_until_async(is_empty, 40)
    after = await (await client.enqueue(CreateUser(name="After"))).result(timeout=SOON)

    dead = await letters(sessions)
    ended = [bool(await redis.exists(f"arq:result:{job_id}")) or job_id in dead for job_id in messages]
    assert (after.name, worker.process.poll(), (tmp_path / "trace").exists()) == ("After", None, False)
    assert all(ended)
    assert await keys_of_jobs(redis, "arq:job:*") == []
    assert await redis.keys("arq:in-progress:*") + await redis.keys("arq:retry:*") == []
