"""Redis is no primary any more: demoted without cutting its clients, failed over by Sentinels, a replica, a cluster."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from arqonce import JobClient, SyncJobClient
from arqonce.connection.redis import build_redis
from arqonce.embedded import ValkeyServer, open_valkey
from arqonce.embedded.program import free_port
from arqonce.failures import QueueUnavailableError
from arqonce.process.health import ServerError
from arqonce.process.probes import server_probes
from jobs import CreateUser
from tests import warm
from tests.arqonce.client.test_waiting import ANSWER
from tests.conftest import StartWorker, wait_until
from tests.faults.observe import Sessions, users_by_name, wait_for_log
from tests.faults.proxy import Proxy, open_proxy

pytestmark = pytest.mark.usefixtures("starts_processes")

SOON = timedelta(seconds=20)
CLUSTER = {"cluster-enabled": "yes", "appendonly": "no"}


def _port(server: ValkeyServer) -> int:
    return urlsplit(server.url).port or 0


def _role(server: ValkeyServer) -> Any:  # noqa: ANN401 - redis-py's
    with SyncRedis.from_url(server.url) as client:
        return client.role()


class Pair:
    """A primary with a replica behind a name that leads to the primary: here a proxy, in the wild DNS."""

    def __init__(self, primary: ValkeyServer, replica: ValkeyServer, name: Proxy) -> None:
        self.primary, self.replica, self.name = primary, replica, name
        self.url = f"redis://127.0.0.1:{name.port}/0"

    def swap(self) -> None:
        """Make the replica the primary, with all data, and let the name lead there. No connection is cut."""
        with SyncRedis.from_url(self.primary.url) as client:
            client.execute_command("FAILOVER")
        wait_until(lambda: _role(self.primary)[0] == b"slave" and _role(self.replica)[0] == b"master", 10)
        self.primary, self.replica = self.replica, self.primary
        self.name.target = _port(self.primary)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """Run a primary and its replica."""
    directory = tmp_path_factory.mktemp("pair")
    with open_valkey(directory / "one", settings={"repl-diskless-sync-delay": "0"}) as one:
        following = {"replicaof": f"127.0.0.1 {_port(one)}", "repl-diskless-sync-delay": "0"}
        with open_valkey(directory / "two", settings=following) as two:
            wait_until(lambda: _role(two)[3] == b"connected", 20)
            yield one, two


@pytest.fixture
def pair(servers: tuple[ValkeyServer, ValkeyServer]) -> Iterator[Pair]:
    """Put a name before the one that is the primary."""
    primary, replica = servers if _role(servers[0])[0] == b"master" else servers[::-1]
    wait_until(lambda: _role(replica)[3] == b"connected", 20)
    with open_proxy(_port(primary)) as name:
        yield Pair(primary, replica, name)


class Producers:
    """Callers of both clients, one job after the other, each until it has its result."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        """Calls that ended in an error; each is made again with the same key."""
        self.done: list[tuple[float, str]] = []
        """When which job had its result."""
        self.is_over = threading.Event()

    async def produce(self, client: JobClient) -> None:
        """Call until it is over."""
        while not self.is_over.is_set():
            name = f"async-{len(self.done)}"
            while not await self._call(client, name):
                await asyncio.sleep(0.05)
            self.done.append((time.monotonic(), name))

    async def _call(self, client: JobClient, name: str) -> bool:
        try:
            await (await client.enqueue(CreateUser(name=name), key=name)).result(timeout=timedelta(seconds=5))
        except (QueueUnavailableError, TimeoutError) as error:
            self.refused.append(repr(error))
            return False
        return True

    def produce_blocking(self, client: SyncJobClient) -> None:
        """Do the same in a thread."""
        while not self.is_over.is_set():
            name = f"sync-{len(self.done)}"
            while not self._call_blocking(client, name):
                time.sleep(0.05)
            self.done.append((time.monotonic(), name))

    def _call_blocking(self, client: SyncJobClient, name: str) -> bool:
        try:
            client.enqueue(CreateUser(name=name), key=name).result(timeout=timedelta(seconds=5))
        except (QueueUnavailableError, TimeoutError) as error:
            self.refused.append(repr(error))
            return False
        return True

    def wait_for_done(self, count: int, seconds: float = 20) -> None:
        """Wait until so many jobs more are done."""
        wanted = len(self.done) + count
        wait_until(lambda: len(self.done) >= wanted, seconds)

    def gap_after(self, moment: float) -> float:
        """Return how many seconds passed until a job was done that was enqueued after ``moment``."""
        later = sorted(when for when, _ in self.done if when > moment)
        return later[2] - moment  # of each caller, one was under way


@asynccontextmanager
async def producing(url: str) -> AsyncIterator[Producers]:
    """Let both kinds of client call, until the end."""
    producers = Producers()
    async with JobClient(url) as client:
        with SyncJobClient(url) as blocking:
            calling = asyncio.create_task(producers.produce(client))
            thread = asyncio.create_task(asyncio.to_thread(producers.produce_blocking, blocking))
            try:
                await asyncio.to_thread(producers.wait_for_done, 20)
                yield producers
            finally:
                producers.is_over.set()
                await asyncio.gather(calling, thread)


async def test_a_demotion_that_cuts_nobody_is_a_hiccup(
    start_worker: StartWorker, sessions: Sessions, pair: Pair
) -> None:
    """The demoted server answers reads and refuses writes: nobody stays with it, and no caller is refused."""
    worker = start_worker(REDIS_URL=pair.url)
    async with producing(pair.url) as producers:
        await asyncio.to_thread(pair.swap)
        moment = time.monotonic()
        await asyncio.to_thread(producers.wait_for_done, 20)

    assert producers.refused == []
    assert producers.gap_after(moment) < 2
    assert await users_by_name(sessions) == {name: 1 for _, name in producers.done}
    assert worker.process.poll() is None


async def test_who_only_waits_leaves_a_demoted_server(pair: Pair) -> None:
    """A replica answers GET, and may never be told of the result."""
    job = CreateUser(name="Waiting")
    async with JobClient(pair.url) as client:
        with SyncJobClient(pair.url) as blocking:
            handle = await client.enqueue(job)
            waiting = [
                asyncio.create_task(handle.result(timeout=SOON)),
                asyncio.create_task(asyncio.to_thread(blocking.handle(CreateUser, handle.job_id).result, timeout=SOON)),
            ]
            await asyncio.sleep(0.2)  # both have looked
            await asyncio.to_thread(pair.swap)
            with SyncRedis.from_url(pair.replica.url) as demoted:
                demoted.replicaof("127.0.0.1", "1")  # it hears of nothing any more
                async with Redis.from_url(pair.primary.url) as redis:
                    await redis.set(f"arq:result:{handle.job_id}", ANSWER)
                began = time.monotonic()
                done, _ = await asyncio.wait(waiting, timeout=20)
                took = time.monotonic() - began
                demoted.replicaof("127.0.0.1", str(_port(pair.primary)))
            status = await client.handle(CreateUser, handle.job_id).status()

    assert ([task.exception() for task in done], status) == ([None, None], "succeeded")
    assert took < 4


async def test_an_idle_worker_leaves_a_demoted_server(
    start_worker: StartWorker, sessions: Sessions, pair: Pair
) -> None:
    """It has no job to end and none to claim; its word that it watches is a write."""
    assert sessions is not None
    worker = start_worker(REDIS_URL=pair.url)
    await asyncio.sleep(0.3)  # it watches
    await asyncio.to_thread(pair.swap)
    began = time.monotonic()
    await wait_for_log(worker, "Redis is back", 10)

    assert time.monotonic() - began < 2.5
    async with JobClient(pair.url) as client:
        before = time.monotonic()
        await (await client.enqueue(CreateUser(name="After"))).result(timeout=SOON)
        assert time.monotonic() - before < 1


async def test_health_is_that_of_a_server_that_takes_writes(pair: Pair, sessions: Sessions) -> None:
    """A replica answers PING. Once the name leads to the primary, the same client is well again."""
    async with build_redis(pair.url, Redis) as redis:
        probe = server_probes(redis, sessions)["Redis"]
        await probe()
        name, pair.name.target = pair.name.target, _port(pair.replica)
        await redis.connection_pool.disconnect()
        with pytest.raises(ServerError, match="cannot be written to: it is a replica"):
            await probe()
        pair.name.target = name
        await probe()


@contextmanager
def _replica(directory: Path) -> Iterator[str]:
    with open_valkey(directory / "replica", settings={"replicaof": "127.0.0.1 1"}) as server:
        yield server.url


@contextmanager
def _cluster(directory: Path) -> Iterator[str]:
    settings = {
        **CLUSTER,
        "cluster-port": str(free_port()),
    }  # else 10,000 above
    with open_valkey(directory / "cluster", settings=settings) as server:
        with SyncRedis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), 10)
        yield server.url


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "replica": (_replica, "it is a replica and takes no writes: point REDIS_URL at the primary"),
    "cluster": (_cluster, "is a Redis Cluster, which cannot hold a queue"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_no_start_on_what_cannot_hold_a_queue(kind: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """Worker, relay, and both clients at their first use say what it is, and the cure; exit code 4."""
    open_server, text = REFUSED[kind]
    with open_server(tmp_path) as url:
        told = [_run(environment | {"REDIS_URL": url}, *words) for words in COMMANDS]
        errors = [_first_use(url), asyncio.run(_first_use_async(url))]

    assert [(code, text in output) for code, output in told] == [(4, True)] * len(COMMANDS)
    assert [text in error for error in errors] == [True, True]


COMMANDS = (("run",), ("relay",))


def _run(environment: dict[str, str], *words: str) -> tuple[int, str]:
    done = warm.run([sys.executable, "-m", "worker", *words], environment, timeout=30)
    return done.returncode, done.stdout + done.stderr


def _first_use(url: str) -> str:
    with pytest.raises(QueueUnavailableError) as caught, SyncJobClient(url) as client:
        client.enqueue(CreateUser(name="Jane"))
    return str(caught.value)


async def _first_use_async(url: str) -> str:
    with pytest.raises(QueueUnavailableError) as caught:
        async with JobClient(url) as client:
            await client.enqueue(CreateUser(name="Jane"))
    return str(caught.value)
