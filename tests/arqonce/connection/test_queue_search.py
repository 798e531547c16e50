"""Queues are found that only Redis knows, and nothing else is taken for one."""

from redis.asyncio import Redis

from arqonce.connection.queue_search import QueueSearch


async def test_queues_are_found_a_few_keys_at_a_time(redis: Redis) -> None:
    """Each look goes on where the last one ended; a queue that is empty is none any more."""
    await redis.mset({f"arq:job:{number}": "{}" for number in range(300)})
    await redis.zadd("mial", {"7": 1})
    await redis.zadd("served", {"8": 1})
    search = QueueSearch(redis, count=10, steps=2)

    looks = [list(await search.look(["served"])) for _ in range(40)]
    await redis.delete("mial")
    after = await search.look(["served"])

    assert (looks[-1], list(after)) == (["mial"], [])
    assert all(one in ([], ["mial"]) for one in looks)


async def test_other_sorted_sets_are_no_queues(redis: Redis) -> None:
    """What another program has, claims, aborts, our own sets, and names that no queue may have."""
    await redis.set("arq:job:a", "{}")
    for name in ("arq:abort", "mail:leases", "arqonce:aside:4:mailx", "two\nlines"):
        await redis.zadd(name, {"a": 1})
    await redis.zadd("scores", {"pat@example.org": 1})
    await redis.zadd("mail", {"a": 1})

    found = await QueueSearch(redis).look([])

    assert list(found) == ["mail"]
