"""Valkey under Sentinels as child processes. One set of five serves all tests: each leaves it whole."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError
from redis.sentinel import Sentinel as RedisSentinel

from arqonce.embedded import Sentinels, ValkeyServer, open_sentinels
from arqonce.embedded.sentinel import MASTER_NAME
from tests.arqonce.embedded.conftest import WaitUntil

pytestmark = pytest.mark.usefixtures("starts_processes")

Sentinel: Any = RedisSentinel  # redis-py has no types for it


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    """Run them, with a password of the servers and another of the Sentinels."""
    with (
        tempfile.TemporaryDirectory(prefix="sentinel tests-") as directory,
        open_sentinels(Path(directory), password="servers", sentinel_password="sentinels") as running,
    ):
        yield running


def test_clients_find_the_primary(sentinels: Sentinels) -> None:
    """By the protocol of Sentinel, as redis-py speaks it; the other server is its replica."""
    client = _by_sentinel(sentinels)

    client.set("found", "yes")
    client.wait(1, 1000)

    assert (_client(sentinels.primary).get("found"), _client(sentinels.replica).role()[0]) == (b"yes", b"slave")


def test_a_failover_makes_the_replica_the_primary(sentinels: Sentinels) -> None:
    """The data stays, and the old primary follows the new one."""
    before = (sentinels.primary, sentinels.replica)
    client = _by_sentinel(sentinels)
    client.set("kept", "yes")
    client.wait(1, 1000)

    sentinels.failover()

    assert (sentinels.replica, sentinels.primary) == before
    assert _client(sentinels.primary).get("kept") == b"yes"
    sentinels.wait_until_replicated()


def test_a_killed_primary_is_replaced_and_comes_back_as_a_replica(sentinels: Sentinels) -> None:
    """So that it can be killed again."""
    old, new = sentinels.primary, sentinels.replica
    before = sentinels.kill_primary()

    sentinels.wait_for_failover(before)
    sentinels.revive()

    assert sentinels.primary is new
    assert sentinels.replica.url == old.url
    assert _client(sentinels.replica).role()[0] == b"slave"


def test_addresses_can_be_those_of_proxies(wait_until: WaitUntil) -> None:
    """What is announced is what the Sentinels tell, of both servers."""
    own: list[int] = []

    def announce(port: int) -> int:
        own.append(port)
        return port  # the same port, which needs no proxy here: only what is asked for counts

    with (
        tempfile.TemporaryDirectory(prefix="sentinel-tests-") as directory,
        open_sentinels(Path(directory), announce=announce) as running,
    ):
        assert running.address == ("127.0.0.1", own[0])
        wait_until(lambda: _announced_of_replica(running) == own[1])


def _announced_of_replica(running: Sentinels) -> int | None:
    with suppress(RedisError, IndexError):
        (replica,) = Sentinel([("127.0.0.1", running.ports[0])]).discover_slaves(MASTER_NAME)
        return int(replica[1])
    return None


def _by_sentinel(sentinels: Sentinels) -> Any:  # noqa: ANN401  redis-py's types mix in its asynchronous client
    addresses = [("127.0.0.1", port) for port in sentinels.ports]
    finder = Sentinel(addresses, sentinel_kwargs={"password": "sentinels"}, password="servers")
    return finder.master_for(MASTER_NAME)


def _client(server: ValkeyServer) -> Any:  # noqa: ANN401  see above
    return Redis.from_url(server.url)
