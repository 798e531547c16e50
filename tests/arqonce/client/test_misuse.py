"""What people get wrong when they use the clients: each is told with its cure, in both clients alike."""

import asyncio
import inspect
import math
import pickle
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from arqonce import JobClient, SyncJobClient
from arqonce.connection.redis import build_redis
from arqonce.failures import InvalidMessageError, QueueUnavailableError
from jobs import CreateUser
from tests.conftest import wait_until_async, wait_until_empty
from tests.faults.proxy import Proxy, open_proxy

JANE = CreateUser(name="Jane")

WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "a number as the key": ((JANE,), {"key": 4711}, "the key must be a str, .*; this is of type int"),
    "a number as the delay": ((JANE,), {"delay": 5}, "delay must be a timedelta, .*; this is of type int"),
    "a text as the time": (
        (JANE,),
        {"at": "2030-01-01"},
        "at must be a datetime with a time zone; this is of type str",
    ),
    "a naive time": ((JANE,), {"at": datetime(2030, 1, 1)}, "at has no time zone"),  # noqa: DTZ001 - the mistake
    "the class": ((CreateUser,), {}, "this is the class CreateUser"),
    "a name, as for arq": (("create_user",), {}, "this is of type str"),
}


@pytest.mark.parametrize("mistake", WRONG)
async def test_a_wrong_argument_names_the_cure(client: JobClient, valkey_url: str, redis: Redis, mistake: str) -> None:
    """Nothing is sent."""
    arguments, options, text = WRONG[mistake]

    with pytest.raises(InvalidMessageError, match=text):
        await client.enqueue(*arguments, **options)
    with pytest.raises(InvalidMessageError, match=text), SyncJobClient(valkey_url) as blocking:
        blocking.enqueue(*arguments, **options)

    await wait_until_empty(redis)


async def test_a_client_or_handle_for_another_process_names_the_cure(client: JobClient, valkey_url: str) -> None:
    """Pickle says of redis-py's classes that they are not the same objects."""
    for one in (client, SyncJobClient(valkey_url)):
        for sent in (one, one.handle(CreateUser, "k")):
            with pytest.raises(TypeError, match=r"a client holds connections, .* send its job_id"):
                pickle.dumps(sent)


async def test_wrong_handles_and_lists_name_the_cure(client: JobClient, valkey_url: str) -> None:
    """One payload where a list is wanted, an instance where a class is."""
    blocking = SyncJobClient(valkey_url)
    for wrong in (client, blocking):
        with pytest.raises(InvalidMessageError, match="class of a payload, such as CreateUser; this is of type str"):
            cast("Any", wrong).handle("create_user", "k")
        with pytest.raises(InvalidMessageError, match="this is of type CreateUser"):
            cast("Any", wrong).handle(JANE, "k")
    with pytest.raises(InvalidMessageError, match="enqueue_many takes a list"):
        await cast("Any", client).enqueue_many(JANE)
    with pytest.raises(InvalidMessageError, match="enqueue_many takes a list"):
        cast("Any", blocking).enqueue_many(JANE)
    blocking.close()


_TIMEOUTS: dict[str, tuple[Any, type[Exception], str]] = {
    "a text": (
        "5",
        TypeError,
        "timeout must be seconds, such as 5 or 0.5, .*, or None to wait for ever; not str",
    ),
    "a yes": (True, TypeError, "timeout must be seconds, .*; not bool"),
    "no number": (math.nan, ValueError, "not nan: None waits for ever"),
    "for ever": (math.inf, ValueError, "not inf: None waits for ever"),
    "the past": (-1, ValueError, "timeout must not be negative, as -1 is: 0 asks once and does not wait"),
    "a past timedelta": (timedelta(seconds=-1), ValueError, "timeout must not be negative"),
}


@pytest.mark.parametrize("mistake", _TIMEOUTS)
async def test_a_wrong_timeout_is_told_before_anything_waits(client: JobClient, valkey_url: str, mistake: str) -> None:
    """For results and for aborts."""
    timeout, error, text = _TIMEOUTS[mistake]
    handle = await client.enqueue(JANE)
    for call in (handle.result, handle.abort):
        with pytest.raises(error, match=text):
            await call(timeout=timeout)
    with SyncJobClient(valkey_url) as client_too:
        blocking = client_too.handle(CreateUser, handle.job_id)
        for blocking_call in (blocking.result, blocking.abort):
            with pytest.raises(error, match=text):
                blocking_call(timeout=timeout)


async def test_seconds_and_timedeltas_are_the_same(client: JobClient, valkey_url: str) -> None:
    """The text says for how long there was none; 0 only looks; 30 s is the limit of who gives none."""
    handle = await client.enqueue(JANE)
    with SyncJobClient(valkey_url) as client_too:
        blocking = client_too.handle(CreateUser, handle.job_id)
        for timeout, text in ((0.05, "0.05 s"), (timedelta(milliseconds=50), "0.05 s"), (0, "0 s")):
            with pytest.raises(TimeoutError, match=f"has no result after {text}"):
                await handle.result(timeout=timeout)
            with pytest.raises(TimeoutError, match=f"has no result after {text}"):
                blocking.result(timeout=timeout)

    for method in (handle.result, handle.abort, blocking.result, blocking.abort):
        assert inspect.signature(method).parameters["timeout"].default == 30


async def test_clients_connect_at_their_first_call(valkey_url: str, redis: Redis) -> None:
    """Constructing opens no connection, so that a module may do it; closing twice is no mistake."""
    before = len(await redis.client_list())
    client, blocking = JobClient(valkey_url), SyncJobClient(valkey_url)
    constructed = len(await redis.client_list())

    await client.enqueue(JANE)
    blocking.enqueue(JANE)
    used = len(await redis.client_list())
    for _ in range(2):
        await client.aclose()
        blocking.close()

    await wait_until_async(lambda: _has_connections(redis, before), 5)
    assert (constructed, used) == (before, before + 2)


async def _has_connections(redis: Redis, count: int) -> bool:
    return len(await redis.client_list()) == count


def test_a_url_that_is_not_set_is_told_as_such() -> None:
    """``os.environ.get`` gives None."""
    with pytest.raises(QueueUnavailableError, match="REDIS_URL is not a URL such as"):
        SyncJobClient(cast("Any", None))
    with pytest.raises(QueueUnavailableError, match="REDIS_URL is not a URL such as"):
        build_redis(cast("Any", None), Redis)


async def test_a_client_that_is_closed_says_so(valkey_url: str, redis: Redis) -> None:
    """And opens no connection again, which nobody would close."""
    async with JobClient(valkey_url) as client:
        handle = await client.enqueue(JANE)
    with SyncJobClient(valkey_url) as client_too:
        blocking = client_too.handle(CreateUser, handle.job_id)
    before = len(await redis.client_list())

    calls: list[Callable[[], Any]] = [lambda: client.enqueue(JANE), handle.status, handle.result, handle.abort]
    for call in calls:
        with pytest.raises(RuntimeError, match="the client is closed"):
            await call()
    calls = [lambda: client_too.enqueue(JANE), blocking.status, blocking.result, blocking.abort]
    for call in calls:
        with pytest.raises(RuntimeError, match="the client is closed"):
            call()

    assert (len(await redis.client_list()), await redis.zcard("arq:queue")) == (before, 1)


@pytest.fixture
def silent(valkey_url: str) -> Iterator[Proxy]:
    """Open a proxy before Valkey."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        yield proxy


async def test_a_silent_redis_is_told_in_seconds(silent: Proxy, redis: Redis) -> None:
    """Before a web server loses its patience, mostly after 30 s; and the next call works when it is back."""
    url = f"redis://127.0.0.1:{silent.port}/0"
    async with JobClient(url) as client:
        blocking = SyncJobClient(url)
        handle = await client.enqueue(JANE)
        await asyncio.to_thread(blocking.enqueue, JANE)
        silent.silence()
        begin = time.monotonic()
        errors = await asyncio.gather(
            client.enqueue(JANE),
            handle.status(),
            asyncio.to_thread(blocking.enqueue, JANE),
            return_exceptions=True,
        )
        seconds = time.monotonic() - begin
        silent.heal()

        await client.enqueue(JANE)
        await asyncio.to_thread(blocking.enqueue, JANE)
    blocking.close()

    assert [type(error) for error in errors] == [QueueUnavailableError] * 3
    assert seconds < 12
    assert await redis.zcard("arq:queue") >= 4
