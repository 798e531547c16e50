"""How a relay knows Redis again that hides what it is: managed servers leave fields out of INFO, or refuse it."""

from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from arqonce.relay.epoch import RedisEpochs
from tests.faults.conftest import redis_proxy  # noqa: F401 - a proxy before Redis
from tests.faults.observe import Sessions
from tests.faults.proxy import Proxy

HIDDEN: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    "nothing": (bytes, b""),
    "run_id": (lambda replies: replies.replace(b"run_id:", b"run_ix:"), b""),
    "run_id and master_replid": (
        lambda replies: replies.replace(b"run_id:", b"run_ix:").replace(b"master_replid:", b"master_replix:"[:14]),
        b"unnamed",
    ),
}


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_an_epoch_lasts_until_redis_was_wiped(
    redis: Redis,
    sessions: Sessions,
    redis_proxy: Proxy,  # noqa: F811 - the fixture
    hidden: str,
) -> None:
    """Whatever INFO leaves out, the relay goes on."""
    redis_proxy.rewrites, name = HIDDEN[hidden]
    async with Redis.from_url(redis_proxy.environment["REDIS_URL"]) as behind:
        epoch = RedisEpochs(behind, sessions, ["queue"])
        first, again = await epoch.read(), await epoch.read()
        (key,) = await redis.keys("arqonce:epoch:*")
        stored = await redis.get(key)
        await redis.flushall()
        after_wipe = await epoch.read()

    assert (again, after_wipe["queue"] > first["queue"], stored.startswith(name)) == (first, True, True)


async def test_an_epoch_needs_no_info(redis: Redis, sessions: Sessions, valkey_url: str) -> None:
    """An ACL that refuses it is not an outage."""
    await redis.acl_setuser("uninformed", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
    async with Redis.from_url(valkey_url, username="uninformed", password="") as limited:
        epoch = RedisEpochs(limited, sessions, ["queue"])

        first, again = await epoch.read(), await epoch.read()

    await redis.acl_deluser("uninformed")
    assert first == again
