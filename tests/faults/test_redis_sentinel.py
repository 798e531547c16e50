"""Redis under real Sentinels: found by them, followed through failovers, and told of when none of them knows it."""

import asyncio
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from arqonce import JobClient, SyncJobClient
from arqonce.connection.redis import build_redis, build_sync_redis
from arqonce.embedded import Sentinels, open_sentinels
from arqonce.failures import QueueUnavailableError
from arqonce.process.lifecycle import require_safe_redis
from arqonce.settings.queue import QueueSettings
from jobs import CreateUser
from tests.conftest import StartWorker
from tests.faults.observe import Sessions, events, users_by_name
from tests.faults.test_redis_demotion import producing

pytestmark = pytest.mark.usefixtures("starts_processes")


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """Run them, with passwords of their own."""
    directory = tmp_path_factory.mktemp("sentinels")
    with open_sentinels(directory, password="servers", sentinel_password="sentinels") as running:
        yield running


def _url(hosts: str) -> str:
    return f"redis+sentinel://:servers@{hosts}/mymaster/0?sentinel_password=sentinels"


async def test_a_killed_primary_is_a_pause_and_loses_nothing(
    start_worker: StartWorker, sessions: Sessions, sentinels: Sentinels
) -> None:
    """The Sentinels elect; the worker and both clients follow, and who repeats a refused call has all its jobs done."""
    url = _url(sentinels.hosts)
    worker = start_worker(REDIS_URL=url)
    async with producing(url) as producers:
        before = await asyncio.to_thread(sentinels.kill_primary)
        await asyncio.to_thread(sentinels.wait_for_failover, before)
        moment = time.monotonic()
        await asyncio.to_thread(producers.wait_for_done, 20)
    await asyncio.to_thread(sentinels.revive)

    assert producers.gap_after(moment) < 3
    assert await users_by_name(sessions) == {name: 1 for _, name in producers.done}
    assert events(worker, "worker ready")[0]["redis"] == f"mymaster by sentinels {sentinels.hosts.replace(',', ', ')}"


async def test_sentinels_that_are_down_are_passed_over(sentinels: Sentinels) -> None:
    """Each is asked in turn, and who has answered comes first next time."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    url = _url(f"127.0.0.1:1,127.0.0.1:{port},{sentinels.hosts}")
    began = time.monotonic()
    async with silent, build_redis(url, Redis) as redis:
        await require_safe_redis(redis, QueueSettings(url=SecretStr(url)))
        first = time.monotonic() - began
        await redis.connection_pool.disconnect()
        await redis.ping()
        second = time.monotonic() - began - first
        with build_sync_redis(url) as blocking:
            blocking.ping()

    assert first < 2.5
    assert second < 0.5


PROBLEMS = {
    "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster": "127.0.0.1:1 cannot be reached",
    "redis+sentinel://{hosts}/mymaster?sentinel_password=hidden": "correct sentinel_password",
    "redis+sentinel://{hosts}/mymaster": "correct sentinel_password",
    "redis+sentinel://{hosts}/other?sentinel_password=sentinels": "knows no other",
    "redis+sentinel://:hidden@{hosts}/mymaster?sentinel_password=sentinels": "refuses the user or password",
    "redis://:sentinels@{host}": "it is a Sentinel: write redis+sentinel://",
    "redis+sentinel://:servers@{server}/mymaster": "refuses the user or password",
}


@pytest.mark.parametrize("url", PROBLEMS)
def test_what_is_wrong_with_sentinels_is_told(sentinels: Sentinels, url: str) -> None:
    """Alike by both clients, with the cure and without a password."""
    port = sentinels.address[1]
    url_of_test = url.format(hosts=sentinels.hosts, host=sentinels.hosts.split(",")[0], server=f"127.0.0.1:{port}")

    async def use() -> None:
        async with JobClient(url_of_test) as client:
            await client.enqueue(CreateUser(name="Jane"))

    with pytest.raises(QueueUnavailableError, match=r"^Redis at ") as told:
        asyncio.run(use())
    with pytest.raises(QueueUnavailableError) as told_blocking, SyncJobClient(url_of_test) as blocking:
        blocking.enqueue(CreateUser(name="Jane"))

    assert [PROBLEMS[url] in str(error.value) for error in (told, told_blocking)] == [True, True]
    assert "hidden" not in f"{told.value}{told_blocking.value}"


@contextmanager
def _who_answers(answer: bytes) -> Iterator[str]:
    """Run what answers each command so; yield its host and port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1 << 16):
                self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


WRONG = {
    "a server that is gone": b"*2\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n",
    "no port": b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\nmany\r\n",
    "a port that cannot be": b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n65536\r\n",
    "no host": b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
    "no name": b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n",
    "a name that cannot be": b"*2\r\n$4\r\na..b\r\n$4\r\n6379\r\n",
    "numbers": b"*2\r\n:1\r\n:2\r\n",
}


@pytest.mark.parametrize("answer", WRONG)
def test_a_sentinel_that_does_not_know_better_is_passed_over(sentinels: Sentinels, answer: str) -> None:
    """One that was cut off from the others names the last primary for ever, though they have elected another."""

    async def use(url: str) -> None:
        async with JobClient(url) as client:
            await client.enqueue(CreateUser(name="Jane"))

    with _who_answers(WRONG[answer]) as wrong:
        url = _url(f"{wrong},{sentinels.hosts}")
        asyncio.run(use(url))
        with SyncJobClient(url) as blocking:
            blocking.enqueue(CreateUser(name="Jane"))


def test_sentinels_that_are_silent_are_told_of() -> None:
    """An error that was raised again is its own context's cause: whoever follows causes comes to an end."""

    async def use(url: str) -> None:
        async with JobClient(url):
            pass

    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(QueueUnavailableError, match=rf"{hosts} cannot be reached \(it does not answer in time\)"):
            asyncio.run(use(f"redis+sentinel://{hosts}/mymaster"))
