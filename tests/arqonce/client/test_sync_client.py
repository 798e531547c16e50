"""The synchronous client: in threads, behind forks, through a network that fails; on real servers."""

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import SyncJobClient, SyncJobHandle
from arqonce.client.requests import Promised
from arqonce.embedded import open_valkey
from arqonce.failures import InvalidMessageError, JobAbortedError, QueueUnavailableError, ResultMissingError
from arqonce.wire.codec import encode
from jobs import CreateUser
from jobs.payloads import EmailTakenError, UserView
from tests.conftest import StartWorker, wait_until
from tests.faults.proxy import Proxy, open_proxy

JANE = CreateUser(name="Jane")
ANSWER = encode({"s": True, "r": {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}})
LONG = timedelta(seconds=20)
Sessions = async_sessionmaker[AsyncSession]
Store = Any
"""redis-py's blocking client, whose answers are typed as if they might have to be awaited."""


@pytest.fixture
def store(redis: AsyncRedis, valkey_url: str) -> Iterator[Store]:
    """Yield a blocking client of an empty Valkey."""
    assert redis is not None  # it has emptied it
    with Redis.from_url(valkey_url) as store:
        yield store


@pytest.fixture
def client(store: Store, valkey_url: str) -> Iterator[SyncJobClient]:
    """Yield our client of an empty queue."""
    assert store.ping()
    with SyncJobClient(valkey_url) as client:
        yield client


@pytest.fixture
def proxy(valkey_url: str) -> Iterator[Proxy]:
    """Open a proxy before the Valkey of all tests."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads enough for all who wait in a test."""
    with ThreadPoolExecutor(100) as threads:
        yield threads


def _end(store: Store, job_id: str) -> None:
    with store.pipeline() as pipe:
        pipe.set(f"arq:result:{job_id}", ANSWER, px=60_000)
        pipe.zrem("arq:queue", job_id)
        pipe.execute()


def _is_waited_for(client: SyncJobClient) -> bool:
    """Say whether somebody reads what Redis tells."""
    wire = client._watch._connection._wire
    return wire is not None and wire._leader is not None


def _looks(store: Store) -> int:
    """Count the commands that only those send who look for a result, one for each look."""
    return int(store.info("commandstats").get("cmdstat_zscore", {"calls": 0})["calls"])


def _begin_to_wait(
    threads: ThreadPoolExecutor, store: Store, *handles: SyncJobHandle[UserView]
) -> "list[Future[UserView]]":
    """Return when all have looked, and Redis tracks the results."""
    before = _looks(store)
    waiting = [threads.submit(handle.result, timeout=LONG) for handle in handles]
    wait_until(lambda: _looks(store) >= before + len(handles), 10)
    return waiting


def _names(waiting: "list[Future[UserView]]") -> list[str]:
    return [one.result(20).name for one in waiting]


def test_a_wait_of_seconds_costs_one_look(client: SyncJobClient, store: Store, threads: ThreadPoolExecutor) -> None:
    """One at the beginning and one at the end: no polling."""
    handle = client.enqueue(JANE)
    before = _looks(store)
    waiting = _begin_to_wait(threads, store, handle)

    time.sleep(1)
    during = _looks(store) - before
    _end(store, handle.job_id)

    assert (_names(waiting), during, _looks(store) - before) == (["Jane"], 1, 2)


def test_a_hundred_threads_share_one_connection(
    client: SyncJobClient, store: Store, threads: ThreadPoolExecutor
) -> None:
    """One of them reads for all, and whoever it is, when it has its own result another goes on."""
    handles = client.enqueue_many([JANE] * 100)
    before = len(store.client_list())
    waiting = _begin_to_wait(threads, store, *handles)
    connections = len(store.client_list()) - before

    for handle in handles:
        _end(store, handle.job_id)

    assert (connections, _names(waiting)) == (1, ["Jane"] * 100)


def test_who_gives_up_leaves_the_reading_to_another(
    client: SyncJobClient, store: Store, threads: ThreadPoolExecutor
) -> None:
    """The first who waits reads for all; its timeout must not make the others deaf."""
    first, *others = client.enqueue_many([JANE] * 5)
    reading = threads.submit(first.result, timeout=timedelta(milliseconds=300))
    wait_until(lambda: _is_waited_for(client), 10)
    waiting = _begin_to_wait(threads, store, *others)
    before = _looks(store)
    with pytest.raises(TimeoutError, match="is a worker running"):
        reading.result(10)

    for handle in others:
        _end(store, handle.job_id)

    assert (_names(waiting), _looks(store) - before) == (["Jane"] * 4, 4)


def test_a_lost_connection_is_made_anew_and_looks_again(
    store: Store, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    """The result was written while nobody could be told."""
    with SyncJobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handles = client.enqueue_many([JANE] * 5)
        waiting = _begin_to_wait(threads, store, *handles)
        proxy.is_closed = True
        proxy.cut()
        for handle in handles:
            _end(store, handle.job_id)
        proxy.is_closed = False

        assert _names(waiting) == ["Jane"] * 5


def test_many_losses_lose_no_result(store: Store, proxy: Proxy, threads: ThreadPoolExecutor) -> None:
    """Cut every 20 ms, while results are written."""
    with SyncJobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handles = client.enqueue_many([JANE] * 80)
        waiting = [threads.submit(handle.result, timeout=LONG) for handle in handles]
        for number, handle in enumerate(handles):
            _end(store, handle.job_id)
            if number % 5 == 0:
                proxy.cut()
                time.sleep(0.02)

        assert _names(waiting) == ["Jane"] * 80


def test_a_redis_that_stays_away_is_told_to_all_who_wait(
    store: Store, proxy: Proxy, threads: ThreadPoolExecutor
) -> None:
    """After some attempts; and the next call works when it is back."""
    with SyncJobClient(f"redis://127.0.0.1:{proxy.port}/0") as client:
        handles = client.enqueue_many([JANE] * 5)
        waiting = _begin_to_wait(threads, store, *handles)
        proxy.is_closed = True
        proxy.cut()
        errors = [one.exception(20) for one in waiting]
        proxy.heal()
        _end(store, handles[0].job_id)

        assert {type(error) for error in errors} == {QueueUnavailableError}
        assert handles[0].result(timeout=LONG).name == "Jane"


def test_a_wiped_redis_ends_the_wait(client: SyncJobClient, store: Store, threads: ThreadPoolExecutor) -> None:
    """No result will ever come."""
    waiting = _begin_to_wait(threads, store, *client.enqueue_many([JANE] * 3))

    store.flushall()

    assert {type(one.exception(10)) for one in waiting} == {ResultMissingError}


def test_a_client_that_is_closed_ends_its_waits(store: Store, valkey_url: str, threads: ThreadPoolExecutor) -> None:
    """A thread that waits for ever would hold up the end of its program."""
    with SyncJobClient(valkey_url) as client:
        waiting = _begin_to_wait(threads, store, *client.enqueue_many([JANE] * 3))

    assert {type(one.exception(10)) for one in waiting} == {QueueUnavailableError}


@pytest.mark.usefixtures("starts_processes")
def test_where_tracking_is_refused_it_polls(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """An ACL of ours from before, or a proxy: slower, with the same results."""
    with open_valkey(tmp_path) as server, Redis.from_url(server.url) as store:
        store.acl_setuser("old", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-client|tracking"])
        with SyncJobClient(server.url.replace("redis://", "redis://old:any@")) as client:
            handle = client.enqueue(JANE)
            waiting = threads.submit(handle.result, timeout=LONG)
            before = _looks(store)
            wait_until(lambda: _looks(store) - before > 10, 10)
            _end(store, handle.job_id)

            assert waiting.result(10).name == "Jane"


def test_a_wait_needs_no_third_connection(client: SyncJobClient, store: Store) -> None:
    """One more proves that Redis notifies; where Redis has no more of them, nothing is proved, and nothing fails."""
    handle, most = client.enqueue(JANE), store.config_get("maxclients")["maxclients"]
    _end(store, handle.job_id)
    store.config_set("maxclients", store.info("clients")["connected_clients"] + 1)

    try:
        assert handle.result(timeout=LONG).name == "Jane"
    finally:
        store.config_set("maxclients", most)


def test_an_idle_link_is_not_trusted(
    client: SyncJobClient, store: Store, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    """What lies between may have forgotten a connection on which nobody has waited for long."""
    first, second = client.enqueue_many([JANE] * 2)
    _end(store, first.job_id)
    first.result(timeout=LONG)
    before = {one["id"] for one in store.client_list()}
    monkeypatch.setattr("arqonce.connection.sync_direct.LINGER", timedelta(0))

    waiting = _begin_to_wait(threads, store, second)
    monkeypatch.undo()
    new = {one["id"] for one in store.client_list()} - before
    _end(store, second.job_id)

    assert (_names(waiting), len(new)) == (["Jane"], 1)


@pytest.mark.usefixtures("starts_processes")
def test_the_client_works_on_both_sides_of_a_fork(client: SyncJobClient, store: Store) -> None:
    """As in a server that loads the application and then forks: no connection and no lock is shared."""
    ours, theirs = client.enqueue_many([JANE] * 2)
    waiting = threading.Thread(target=ours.result)
    waiting.start()
    wait_until(lambda: _is_waited_for(client), 10)
    before = _looks(store)

    child = os.fork()
    if child == 0:  # no pytest in here
        try:
            theirs.result(timeout=LONG)
            os._exit(7)
        finally:
            os._exit(1)
    wait_until(lambda: _looks(store) > before, 10)
    _end(store, theirs.job_id)
    _, status = os.waitpid(child, 0)
    _end(store, ours.job_id)
    waiting.join(10)

    assert (os.waitstatus_to_exitcode(status), waiting.is_alive()) == (7, False)


def test_what_is_no_payload_is_refused_with_the_cure(client: SyncJobClient, store: Store) -> None:
    """As with the asyncio client."""
    with pytest.raises(InvalidMessageError, match=r"such as CreateUser.*of type int"):
        client.enqueue_many([1])  # type: ignore[arg-type] # the mistake under test

    wait_until(lambda: store.dbsize() == 0, 2)  # the key that shows whether changes are told lasts for a millisecond


def test_keys_order_and_times_are_those_of_the_asyncio_client(client: SyncJobClient, store: Store) -> None:
    """The same messages, sent by other means."""
    later = client.enqueue(JANE, delay=timedelta(hours=1))
    client.enqueue(JANE, key="k3")
    handles = client.enqueue_many((JANE for _ in range(1200)), keys=[f"k{number}" for number in range(1200)])

    score = store.zscore("arq:queue", later.job_id)
    duplicates = [one.job_id for one in handles if not one.is_new]
    assert score == pytest.approx(time.time() * 1000 + 3_600_000, abs=5000)
    assert (duplicates, store.zcard("arq:queue")) == (["k3"], 1201)
    assert json.loads(store.get("arq:job:k7") or b"")["k"] == {"name": "Jane"}


def test_a_promised_job_is_waited_for(client: SyncJobClient, store: Store, threads: ThreadPoolExecutor) -> None:
    """Before it is in Redis."""
    handle = client.handle(Promised("later", is_new=True, result_type=UserView))
    waiting = _begin_to_wait(threads, store, handle)

    _end(store, "later")

    assert _names(waiting) == ["Jane"]


def test_a_redis_that_is_not_there_is_one_clear_error() -> None:
    """On opening, with the cure and without the password."""
    for url, text in {
        "redis://user:hidden-word@127.0.0.1:1/0": "Redis at 127.0.0.1:1/0 cannot be reached",
        "http://hidden-word": "REDIS_URL is not a URL such as",
    }.items():
        with pytest.raises(QueueUnavailableError, match=text) as caught, SyncJobClient(url):
            pass
        assert "hidden-word" not in str(caught.value)


async def test_a_worker_answers_refuses_and_aborts(
    start_worker: StartWorker, sessions: Sessions, valkey_url: str
) -> None:
    """Through a real one: a result, a failure of its own type, the job's times, and a job that is not due yet."""
    assert sessions is not None  # it removes the users afterwards
    start_worker()
    with SyncJobClient(valkey_url) as client:
        jane = client.enqueue(CreateUser(name="Jane", email="j@example.org"))
        user = jane.result(timeout=LONG)
        again = client.enqueue(CreateUser(name="Joe", email="j@example.org"))
        with pytest.raises(EmailTakenError):
            again.result(timeout=LONG)
        later = client.enqueue(JANE, delay=timedelta(hours=1))
        aborted = (later.abort(timeout=LONG), jane.abort(timeout=LONG))
        with pytest.raises(JobAbortedError):
            later.result(timeout=LONG)
        info = jane.info()

    assert (user.name, aborted) == ("Jane", (True, False))
    assert (info.status.value, info.job_name, info.attempts) == ("succeeded", "create_user", 1)
    assert info.enqueued_at is not None
    assert info.started_at is not None
    assert info.finished_at is not None
    assert info.enqueued_at <= info.started_at <= info.finished_at
