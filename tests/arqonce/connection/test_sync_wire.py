"""The connection that threads share: losses, kills, silence and forks, each at the moment where it hurts."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce import SyncJobClient
from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import build_sync_redis
from arqonce.connection.sync_direct import SyncDirectConnection
from arqonce.connection.sync_wire import Bell, Wire
from arqonce.failures import QueueUnavailableError
from arqonce.wire.codec import encode
from jobs import CreateUser
from tests.conftest import wait_until
from tests.faults.proxy import Proxy, open_proxy

JANE = CreateUser(name="Jane")
ANSWER = encode({"s": True, "r": {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}})
LONG = timedelta(seconds=20)
Store = Any
"""redis-py's blocking client, whose answers are typed as if they might have to be awaited."""


@pytest.fixture
def store(redis: AsyncRedis, valkey_url: str) -> Iterator[Store]:
    """Yield a blocking client of an empty Valkey."""
    assert redis is not None  # it has emptied it
    with Redis.from_url(valkey_url) as store:
        yield store


@pytest.fixture
def connection(store: Store, valkey_url: str) -> Iterator[SyncDirectConnection]:
    """Yield a connection of ours that is open."""
    assert store.ping()
    connection = SyncDirectConnection(build_sync_redis(valkey_url))
    connection.ask(("PING",))
    yield connection
    connection.close()


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[Proxy]:
    """Open a proxy before the Valkey of all tests."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads enough for all who call in a test."""
    with ThreadPoolExecutor(60) as threads:
        yield threads


def _wire(connection: SyncDirectConnection) -> Wire:
    return connection.open(time.monotonic() + 5)


def _errors(calls: "list[Future[Any]]") -> set[str]:
    return {type(call.exception(20)).__name__ for call in calls}


def test_each_thread_gets_its_own_answer(connection: SyncDirectConnection, threads: ThreadPoolExecutor) -> None:
    """All at once on one connection, short answers and long ones."""
    words = [f"{number} " * (1 + number % 50 * 200) for number in range(600)]

    answers = list(threads.map(lambda word: connection.ask(("ECHO", word), ("ECHO", word[::-1])), words))

    assert answers == [[word.encode(), word[::-1].encode()] for word in words]


def test_a_loss_ends_all_waits_and_leaves_the_socket_to_its_reader(
    connection: SyncDirectConnection, threads: ThreadPoolExecutor
) -> None:
    """Another thread that closes it would take it from under a read; its number may be that of another file then."""
    wire = _wire(connection)
    calls = [threads.submit(wire.ask, [("BLPOP", "nothing", "0")], 10) for _ in range(10)]
    wait_until(lambda: len(wire._followers) == 9, 10)

    wire.lose("for a test")

    assert (_errors(calls), wire._socket.fileno() > 0) == ({"ConnectionError"}, True)
    with pytest.raises(RedisConnectionError, match="for a test"):
        wire.ask([("PING",)], 1)


def test_the_socket_is_closed_when_the_last_thread_has_left(connection: SyncDirectConnection) -> None:
    """Nobody can use it any more."""
    opened = _wire(connection)._socket

    connection.close()

    assert opened.fileno() == -1


def test_a_socket_whose_class_has_no_methods_is_shut_down(connection: SyncDirectConnection) -> None:
    """As those of eventlet, which have them as attributes: a client could neither be closed nor connect again."""
    wire: Any = connection._wire
    real = wire._socket
    wire._socket = SimpleNamespace(shutdown=real.shutdown, real=real)

    wire.lose("closed")

    assert real.recv(1) == b""


def test_an_answer_that_nobody_waits_for_is_not_taken_for_the_next(connection: SyncDirectConnection) -> None:
    """Its caller has given up, and the connection is of use as long as Redis is not silent."""
    wire = _wire(connection)
    with pytest.raises(RedisTimeoutError):
        wire.ask([("BLPOP", "nothing", "0.2")], 0.05)

    assert (wire.ask([("ECHO", "mine")], 5), wire.lost) == ([b"mine"], None)


def test_a_slow_reply_is_waited_for_and_a_slow_reader_too(threads: ThreadPoolExecutor) -> None:
    """A hundred results of 1 MB need more than five seconds on a slow network. ``last`` ends the wait all the same."""
    ours, redis = socket.socketpair()
    wire = Wire(SimpleNamespace(_sock=ours, _parser=SimpleNamespace(parse_error=ResponseError)))

    def answer_slowly() -> None:
        size = 1_000_000
        while size > 0:
            size -= len(redis.recv(50_000))
            time.sleep(0.03)
        for part in (b"$6\r\n", *[b"%d" % at for at in range(6)], b"\r\n"):
            redis.sendall(part)
            time.sleep(0.1)

    answering = threads.submit(answer_slowly)
    answer = wire.ask([("SET", "k", b"x" * 1_000_000)], 0.5)
    answering.result(10)
    answering = threads.submit(answer_slowly)
    with pytest.raises(RedisTimeoutError):
        wire.ask([("SET", "k", b"x" * 1_000_000)], 0.5, last=time.monotonic() + 0.7)

    answering.result(10)
    redis.close()
    assert (answer, wire.lost) == ([b"012345"], None)


def test_who_dies_while_it_reads_takes_nobodys_answer_along(
    connection: SyncDirectConnection, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has read may be lost, so the connection is, and the others ask again on another."""
    wire = _wire(connection)
    dying = threads.submit(wire.ask, [("BLPOP", "nothing", "0.3")], 10)
    wait_until(lambda: wire._leader is not None, 10)
    others = [threads.submit(connection.ask, ("ECHO", str(number))) for number in range(20)]
    wait_until(lambda: len(wire._followers) == 20, 10)

    def die(_data: bytes) -> None:
        raise SystemExit

    monkeypatch.setattr(wire, "_take", die)

    assert [other.result(10) for other in others] == [[str(number).encode()] for number in range(20)]
    assert isinstance(dying.exception(10), SystemExit)


def test_ctrl_c_in_a_wait_leaves_the_client_to_the_others(
    store: Store, valkey_url: str, threads: ThreadPoolExecutor
) -> None:
    """The one who is interrupted reads for all; the others and the next call go on."""
    with SyncJobClient(valkey_url) as client:
        mine, theirs = client.enqueue_many([JANE] * 2)
        waiting: list[Future[Any]] = []

        def interrupt() -> None:
            wait_until(lambda: _is_led(client), 10)
            waiting.append(threads.submit(theirs.result, timeout=LONG))
            wait_until(lambda: _followers(client) == 1, 10)
            os.kill(os.getpid(), signal.SIGINT)

        interrupting = threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            mine.result(timeout=LONG)
        interrupting.result(10)
        for handle in (mine, theirs):
            store.set(f"arq:result:{handle.job_id}", ANSWER)

        assert (waiting[0].result(10).name, mine.result(timeout=LONG).name) == ("Jane", "Jane")


def _is_led(client: SyncJobClient) -> bool:
    wire = client._watch._connection._wire
    return wire is not None and wire._leader is not None


def _followers(client: SyncJobClient) -> int:
    wire = client._watch._connection._wire
    return 0 if wire is None else len(wire._followers)


def test_who_leaves_wakes_another_to_read(connection: SyncDirectConnection, threads: ThreadPoolExecutor) -> None:
    """Also one that was woken to read and had no time left."""
    wire = _wire(connection)
    calls = [threads.submit(wire.wait, Bell(), time.monotonic() + 0.1 + number / 100) for number in range(20)]
    asked = threads.submit(wire.ask, [("BLPOP", "nothing", "0.5")], 10)

    assert (_errors(calls), asked.result(10)) == ({"NoneType"}, [None])


def test_what_nobody_asked_for_loses_the_connection(connection: SyncDirectConnection) -> None:
    """An answer too many would shift all that follow."""
    wire = _wire(connection)
    wire._socket.send(b"PING\r\n")

    wire.wait(Bell(), time.monotonic() + 5)

    assert "without a request" in str(wire.lost)


@pytest.mark.parametrize("keys", [b":5", b"*1\r\n*0", b"*1\r\n:5", b"$1\r\nk"])
async def test_news_that_name_no_keys_lose_the_connection(
    redis: AsyncRedis, connection: SyncDirectConnection, keys: bytes
) -> None:
    """As all that Redis does not say: neither who reads nor the event loop has an error of Python's."""
    wire, direct = _wire(connection), DirectConnection(redis)
    news = b">2\r\n$10\r\ninvalidate\r\n" + keys + b"\r\n"
    with pytest.raises(InvalidResponse):
        wire._take(news)

    told = await direct.open()
    told.data_received(news)

    assert told.is_lost


@pytest.mark.parametrize("news", [b">0\r\n", b">1\r\n*0\r\n", b">1\r\n$10\r\ninvalidate\r\n"])
def test_other_news_are_passed_over(connection: SyncDirectConnection, news: bytes) -> None:
    """They are no answer to anybody."""
    wire = _wire(connection)

    wire._take(news)

    assert wire.lost is None


def test_a_silent_redis_fails_all_calls_together(
    store: Store, proxy: Proxy, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one after the other; and what ends for its own timeout says that Redis is silent, and asks for no worker."""
    assert store.ping()
    for module in ("connection.sync_wire", "connection.sync_direct", "client.sync_waiting"):
        monkeypatch.setattr(f"arqonce.{module}.SILENCE", timedelta(seconds=1.5))
    monkeypatch.setattr("arqonce.connection.redis._COMMAND_TIMEOUT", timedelta(seconds=1.5))
    with SyncJobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handle = client.enqueue(JANE, delay=timedelta(hours=1))
        proxy.silence()
        start = time.monotonic()
        calls = [threads.submit(call) for call in (handle.status, handle.result, client.ping) for _ in range(15)]
        late = threads.submit(handle.result, timeout=timedelta(seconds=1))

        assert _errors(calls) == {"QueueUnavailableError"}
        assert time.monotonic() - start < 4
        with pytest.raises(TimeoutError, match="has not answered"):
            late.result(1)
        proxy.heal()
        client.ping()


def test_a_failure_to_connect_is_that_of_all_who_wait_for_it(
    store: Store, proxy: Proxy, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty attempts in turn would last twenty times as long."""
    assert store.ping()
    monkeypatch.setattr("arqonce.connection.redis._COMMAND_TIMEOUT", timedelta(seconds=1))
    connection = SyncDirectConnection(build_sync_redis(f"redis://127.0.0.1:{proxy.port}/1"))
    proxy.silence()
    start = time.monotonic()

    calls = [threads.submit(connection.ask, ("PING",)) for _ in range(20)]

    assert (_errors(calls), time.monotonic() - start < 4) == ({"TimeoutError"}, True)
    proxy.heal()
    assert connection.ask(("PING",)) == [b"PONG"]
    connection.close()


@pytest.mark.usefixtures("starts_processes")
def test_a_fork_in_the_middle_of_calls_shares_nothing(store: Store, valkey_url: str) -> None:
    """Whatever lock a thread of the parent holds at that moment, there is no such thread in the child."""
    with SyncJobClient(valkey_url) as client:
        is_over = threading.Event()
        handle = client.enqueue(JANE, delay=timedelta(hours=1))
        failures: list[Exception] = []

        def call() -> None:
            try:
                while not is_over.is_set():
                    handle.status()
            except Exception as error:  # noqa: BLE001 - whatever it is
                failures.append(error)

        calling = [threading.Thread(target=call) for _ in range(8)]
        for thread in calling:
            thread.start()
        codes = [_exit_code_of_a_fork(client) for _ in range(15)]
        is_over.set()
        for thread in calling:
            thread.join(10)

    assert (codes, failures, store.zcard("arq:queue")) == ([7] * 15, [], 16)


def _exit_code_of_a_fork(client: SyncJobClient) -> int:
    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            client.enqueue(JANE, delay=timedelta(hours=1))
            os._exit(7)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_client_that_is_closed_while_it_connects_ends_its_calls(store: Store, proxy: Proxy) -> None:
    """With one of our errors, and without a connection that nobody closes."""
    assert store.ping()
    with ThreadPoolExecutor(5) as threads, SyncJobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handle = client.enqueue(JANE)
        proxy.silence()
        calls = [threads.submit(handle.result) for _ in range(5)]
        wait_until(client._watch._connection._opening.locked, 10)
        client.close()
        proxy.heal()

        assert {type(call.exception(20)) for call in calls} == {QueueUnavailableError}
        assert "the client was closed during the call" in str(calls[0].exception())
