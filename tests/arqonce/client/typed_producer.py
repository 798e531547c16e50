"""What the clients promise to type checkers. Never run: ``test_typing`` gives it to mypy and to pyright.

A line with ``type: ignore`` is a mistake that both must find: an ignore that is not needed is an error.
"""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from arqonce import (
    JobClient,
    JobHandle,
    JobInfo,
    JobStatus,
    Promised,
    SyncJobClient,
    SyncJobHandle,
)
from jobs import CreateUser, CreateUsers, FindUser, NewUser
from jobs.payloads import FoundUsers, StoredUsers, UserView


async def with_asyncio(promised: Promised[UserView]) -> None:
    """Show that the payload decides on the type of the result."""
    async with JobClient("redis://localhost") as client:
        assert_type(client, JobClient)
        handle = await client.enqueue(CreateUser(name="Jane"), key="k", delay=timedelta(seconds=1))
        assert_type(handle, JobHandle[UserView])
        assert_type(await handle.result(timeout=timedelta(seconds=1)), UserView)
        assert_type(await handle.status(), JobStatus)
        assert_type(await handle.info(), JobInfo)
        assert_type(await handle.abort(), bool)
        found = await client.enqueue(FindUser(id=1), at=datetime.now(UTC))
        assert_type((await found.result()).first, UserView | None)
        many = await client.enqueue_many([CreateUsers(users=[NewUser(name="Jane")])], keys=["k"])
        assert_type(many, list[JobHandle[StoredUsers]])
        assert_type(client.handle(promised), JobHandle[UserView])
        assert_type(client.handle(FindUser, "k"), JobHandle[FoundUsers])
        assert_type(client.handle(FindUser, "k", is_promised=True), JobHandle[FoundUsers])
        assert_type(handle.is_new, bool)
        assert_type(await handle.result(timeout=5), UserView)
        assert_type(await handle.result(timeout=None), UserView)

        await client.enqueue(1)  # type: ignore[arg-type]
        await client.enqueue_many([1])  # type: ignore[arg-type]
        await client.enqueue_many([CreateUser(name="Jane")], delay=timedelta(seconds=1))
        client.handle(FindUser)  # type: ignore[call-overload]
        await handle.result(timeout="5")  # type: ignore[arg-type]
        await client.enqueue(CreateUser(name="Jane"), delay=1)  # type: ignore[arg-type]
        (await handle.result()).users  # type: ignore[attr-defined]  # noqa: B018 - for the checker


def without(promised: Promised[UserView]) -> None:
    """Show the same, synchronously."""
    assert_type(SyncJobClient("redis://localhost").enqueue(FindUser(id=1)), SyncJobHandle[FoundUsers])
    with SyncJobClient("redis://localhost") as client:
        assert_type(client, SyncJobClient)
        handle = client.enqueue(CreateUser(name="Jane"), key="k", delay=timedelta(seconds=1))
        assert_type(handle, SyncJobHandle[UserView])
        assert_type(handle.result(timeout=timedelta(seconds=1)), UserView)
        assert_type(handle.status(), JobStatus)
        assert_type(handle.info(), JobInfo)
        assert_type(handle.abort(), bool)
        many = client.enqueue_many([CreateUsers(users=[NewUser(name="Jane")])], keys=["k"])
        assert_type(many, list[SyncJobHandle[StoredUsers]])
        assert_type(client.handle(promised), SyncJobHandle[UserView])
        assert_type(client.handle(FindUser, "k", is_promised=True), SyncJobHandle[FoundUsers])
        client.handle(promised, is_promised=True)  # type: ignore[call-overload]
        assert_type(handle.result(timeout=0.5), UserView)

        client.enqueue(1)  # type: ignore[arg-type]
        client.enqueue_many([1])  # type: ignore[arg-type]
        handle.result().users  # type: ignore[attr-defined]  # noqa: B018 - for the checker
