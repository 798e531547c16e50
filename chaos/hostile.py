"""Hostile messages, written directly into Valkey. Their ids are recorded, because none may ever take effect."""

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from redis.asyncio import Redis

from arqonce.wire.keys import IN_PROGRESS_KEY, JOB_KEY, QUEUE, RETRY_KEY
from chaos.plan import MARKER


class _Bomb:
    """An object whose pickle creates a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._trace),)


def messages(trace: Path) -> dict[str, bytes]:
    """Return hostile messages by what is wrong with them. Unpickling creates the folder ``trace``."""

    def job(**fields: object) -> bytes:
        message: dict[str, object] = {
            "t": None,
            "f": "create_user",
            "a": [],
            "k": {"name": f"{MARKER} hostile"},
            "et": 0,
        }
        return json.dumps(message | fields).encode()

    return {
        "bytes": b"\xff\x00garbage",
        "pickle": pickle.dumps(_Bomb(trace)),
        "pickle-of-arq": pickle.dumps({"t": None, "f": "create_user", "a": (), "k": {"name": "x"}, "et": 0}),
        "deep": b"[" * 100_000,
        "deep-field": b'{"f":"create_user","et":0,"k":{"name":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
        "large": b'"' + b"x" * 2_000_000 + b'"',
        "list": b"[1,2]",
        "function": job(f=["x"]),
        "no-function": job(f=None),
        "try": job(t="x"),
        "huge-try": job(t=1e30),
        "time": job(et="now"),
        "far": job(et=10**30),
        "arguments": job(a=7),
        "fields": job(k=[1]),
        "name": job(k={"name": {"a": 1}}),
        "zero-byte": job(k={"name": f"{MARKER}\0"}),
        "surrogate": job(k={"name": "\ud800"}),
        "long": job(k={"name": MARKER * 1000}),
        "ctx": job(k={"ctx": 1, "self": 2, "name": f"{MARKER} hostile"}),
        "result": job(s=True, f="x"),
        "refusal": job(f="refuse_message", a=["x", "y"]),
    }


_LOOKUP = json.dumps({"f": "find_user", "k": {"id": 1}, "et": 0})
"""A valid message, which may be run, because the key of the wrong type may have been repaired."""

_IDS = (b"\xff\xfe", b"with space", b"line\nbreak", b"", b"x" * 201, "Ünicode".encode(), b"\0")
"""Invalid ids. Each comes with a valid message, which must not run either."""


class Intruder:
    """An attacker who can write to the queue."""

    def __init__(self, url: Callable[[], str], trace: Path) -> None:
        """Write to the primary whose URL ``url`` returns."""
        self._url, self._messages = url, messages(trace)
        self.ids: set[str] = set()
        """The ids used so far that are valid text."""

    async def strike(self, random: Random, number: int) -> None:
        """Put one hostile item into the queue.

        Raises:
            RedisError: Valkey is unreachable.
        """
        kind = random.randrange(3)
        job_id = f"intruder-{number}"
        if kind == 0:
            await self._queue(random.choice(_IDS), self._good())
        elif kind == 1:
            self.ids.add(job_id)
            await self._wrong_type(job_id, random)
        else:
            self.ids.add(job_id)
            await self._queue(job_id.encode(), self._messages[random.choice(sorted(self._messages))])

    def _good(self) -> bytes:
        return json.dumps({"f": "create_user", "k": {"name": f"{MARKER} hostile"}, "et": 0}).encode()

    async def _wrong_type(self, job_id: str, random: Random) -> None:
        """Set one of a job's keys to a type that arq never uses for it."""
        prefix = random.choice([JOB_KEY, RETRY_KEY, IN_PROGRESS_KEY])
        async with Redis.from_url(self._url()) as redis, redis.pipeline(transaction=True) as pipe:
            pipe.set(JOB_KEY + job_id, _LOOKUP, px=600_000)
            pipe.delete(prefix + job_id)
            pipe.rpush(prefix + job_id, "x")
            pipe.pexpire(prefix + job_id, 10_000)
            pipe.zadd(QUEUE, {job_id: _now()})
            await pipe.execute()

    async def _queue(self, job_id: bytes, message: bytes) -> None:
        async with Redis.from_url(self._url()) as redis, redis.pipeline(transaction=True) as pipe:
            pipe.set(JOB_KEY.encode() + job_id, message, px=600_000)
            pipe.zadd(QUEUE, {job_id: _now()})
            await pipe.execute()


def _now() -> float:
    return time.time() * 1000
