"""What surrounds clients in a storm, in a process of its own: a proxy that fails at random, and a worker that answers.

Prints the proxy's port, and at the end of its input how often it has failed. The worker talks to Redis past the proxy,
so that each job is answered whatever happens to clients.
"""

import asyncio
import json
import random
import sys
from asyncio import CancelledError, StreamReader, StreamWriter
from collections import Counter
from contextlib import suppress

from redis.asyncio import Redis

from arqonce.wire.codec import encode

FAULTS = ("reset", "close", "half", "lose the reply", "lose the request", "garbage", "silence")
GARBAGE = (
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\x16\x03\x01\x02\x00",
    b"*9\r\n" * 11,
)


class Weather:
    """Decides what goes wrong, from one seed."""

    def __init__(self, seed: int, per_second: float, silence: float) -> None:
        self.random = random.Random(seed)
        self.per_second = per_second
        self.silence = silence
        self.is_over = False
        self.counts: Counter[str] = Counter()
        self.refuses = False
        self.links: set[asyncio.Queue[str]] = set()
        """Of each link, where it is told its fault."""

    async def rage(self) -> None:
        """Break links, one or all, and now and then refuse new ones."""
        while not self.is_over:
            await asyncio.sleep(self.random.expovariate(self.per_second))
            if not self.links:
                continue
            fault = self.random.choices(FAULTS, weights=(9, 6, 6, 6, 6, 3, 0.3))[0]
            links = sorted(self.links, key=id)
            for link in links if self.random.random() < 0.3 else [self.random.choice(links)]:
                self.counts[fault] += 1
                link.put_nowait(fault)
            if self.random.random() < 0.02:
                self.counts["refuse"] += 1
                self.refuses = True
                await asyncio.sleep(self.random.uniform(0.1, 1.5))
                self.refuses = False


class Link:
    """One connection through the proxy."""

    def __init__(self, weather: Weather, client: tuple[StreamReader, StreamWriter], target: int) -> None:
        self._weather = weather
        self._client = client
        self._target = target
        self._fault = ""

    async def run(self) -> None:
        """Forward until one side ends, or the fault comes."""
        faults: asyncio.Queue[str] = asyncio.Queue()
        self._weather.links.add(faults)
        server = None
        with suppress(OSError, EOFError):
            server = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._requests(self._client[0], server[1])),
                    group.create_task(self._replies(server[0], self._client[1])),
                    group.create_task(self._meet(faults)),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        self._weather.links.discard(faults)
        if server is not None:
            server[1].transport.abort()
        if self._fault == "close":
            self._client[1].close()
        else:
            self._client[1].transport.abort()

    async def _meet(self, faults: "asyncio.Queue[str]") -> None:
        self._fault = await faults.get()
        if self._fault == "silence":
            await asyncio.sleep(self._weather.random.uniform(0.2, self._weather.silence))
        elif self._fault not in {"reset", "close"}:
            await asyncio.sleep(0.5)  # the fault is that of the next request or reply

    async def _requests(self, source: StreamReader, target: StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self._fault == "lose the request":
                return
            await self._wait_out()
            target.write(data)

    async def _replies(self, source: StreamReader, target: StreamWriter) -> None:
        while data := await source.read(1 << 16):
            if self._fault == "lose the reply":
                return
            await self._wait_out()
            if self._fault == "half":
                target.write(data[: self._weather.random.randrange(len(data))])
                await asyncio.sleep(0.01)
                return
            if self._fault == "garbage":
                target.write(data[: self._weather.random.choice((0, len(data)))] + self._weather.random.choice(GARBAGE))
                await asyncio.sleep(0.05)
                return
            target.write(data)

    async def _wait_out(self) -> None:
        while self._fault == "silence":
            await asyncio.sleep(0.05)


async def work(redis: Redis) -> None:
    """Answer each job with its own name; an aborted one with its abort."""
    while True:
        ids = await redis.zrange("arq:queue", 0, 499)
        messages = await redis.mget([b"arq:job:" + job_id for job_id in ids]) if ids else []
        asked = set(await redis.zrange("arq:abort", 0, -1))
        async with redis.pipeline(transaction=True) as pipe:
            for job_id, data in zip(ids, messages, strict=True):
                name = json.loads(data or b"{}").get("k", {}).get("name", "?")
                if job_id in asked or not name.startswith("later"):
                    pipe.set(b"arq:result:" + job_id, _answer(name, is_aborted=job_id in asked), px=600_000)
                    pipe.zrem("arq:queue", job_id)
                    pipe.zrem("arq:abort", job_id)
            await pipe.execute()
        await asyncio.sleep(0.005)


def _answer(name: str, *, is_aborted: bool) -> bytes:
    user = {"id": 1, "name": name, "email": None, "created_at": "2026-01-01T00:00:00Z"}
    return encode({"s": not is_aborted, "r": CancelledError() if is_aborted else user, "f": name, "t": 1})


async def main(target: int, seed: int, per_second: float, silence: float) -> None:
    """Rage until the input ends, then be well-behaved until it ends for good."""
    weather = Weather(seed, per_second, silence)

    async def connect(reader: StreamReader, writer: StreamWriter) -> None:
        if weather.refuses:
            writer.transport.abort()
        else:
            await Link(weather, (reader, writer), target).run()

    async with Redis(port=target) as redis, await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        working = asyncio.create_task(work(redis))
        raging = asyncio.create_task(weather.rage())
        await asyncio.to_thread(sys.stdin.readline)
        weather.is_over = True
        await raging
        print(json.dumps(weather.counts), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        if working.done():
            await working
        working.cancel()
        server.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
