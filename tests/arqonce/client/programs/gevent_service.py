"""A service of greenlets: 500 wait for their users at once. The patch comes first, as gevent wants it."""

from gevent import monkey

monkey.patch_all()

import asyncio  # noqa: E402 - the patch comes first
import os  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from datetime import timedelta  # noqa: E402

import gevent  # noqa: E402
from redis import Redis  # noqa: E402

from arqonce import SyncJobClient, SyncJobHandle  # noqa: E402
from jobs import CreateUser  # noqa: E402
from jobs.payloads import UserView  # noqa: E402

LONG = timedelta(seconds=30)
longest = 0.0


def _measure_pauses() -> None:
    """Note for how long no other greenlet could run."""
    global longest  # noqa: PLW0603 - a program of one page
    while True:
        before = time.monotonic()
        gevent.sleep(0.01)
        longest = max(longest, time.monotonic() - before)


def _no_loop(*_: object, **__: object) -> None:
    raise AssertionError("an event loop was made")


asyncio.new_event_loop = _no_loop  # type: ignore[assignment] # it must not be called

with SyncJobClient(os.environ["REDIS_URL"]) as client, Redis.from_url(os.environ["REDIS_URL"]) as redis:
    ticking = gevent.spawn(_measure_pauses)

    def _create(number: int) -> SyncJobHandle[UserView]:
        return client.enqueue(CreateUser(name=f"user {number}"), delay=timedelta(seconds=2))

    creating = [gevent.spawn(_create, number) for number in range(500)]
    gevent.joinall(creating, raise_error=True)
    before = len(list(redis.client_list()))
    waiting = [gevent.spawn(one.value.result, timeout=LONG) for one in creating]
    gevent.sleep(0.5)
    connections = len(list(redis.client_list())) - before
    gevent.joinall(waiting, raise_error=True)
    names = [one.value.name for one in waiting]
    ticking.kill()

assert names == [f"user {number}" for number in range(500)], names
assert connections == 1, connections
assert longest < 1.0, longest
assert {thread.name for thread in threading.enumerate()} == {"MainThread"}
print("gevent: 500 users")
