"""A server was put back to an earlier moment: what was promised happens, and nothing happens twice."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import DatabaseSettings, JobClient, enqueue_in, open_database
from arqonce.embedded import open_postgres, open_valkey
from arqonce.ledger.schema import upgrade_schemas
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests import warm

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("starts_processes")]


class Folders(NamedTuple):
    """Where the servers of a test keep their data, and copies of it."""

    postgres: Path
    valkey: Path

    def save(self) -> None:
        """Copy the data of both servers, which do not run."""
        for folder in self:
            data = _data_in(folder)
            subprocess.run(["cp", "-a", data, f"{data}.saved"], check=True)

    @staticmethod
    def restore(folder: Path) -> None:
        """Put back what was saved, with its owner."""
        data = _data_in(folder)
        shutil.rmtree(data)
        Path(f"{data}.saved").rename(data)


def _data_in(folder: Path) -> Path:
    """Return where the data are: for root, PostgreSQL's are elsewhere."""
    return (folder / "data").resolve() if (folder / "data").exists() else folder


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Return folders of this test."""
    return Folders(tmp_path / "postgres", tmp_path / "valkey")


async def _act(
    folders: Folders,
    environment: dict[str, str],
    *,
    promise: Sequence[str] = (),
    enqueue: Sequence[str] = (),
    works: bool = True,
) -> list[str]:
    """Run the servers, promise and enqueue users of these names, let a worker do all, and return whom there is."""
    with open_postgres(folders.postgres) as postgres, open_valkey(folders.valkey) as valkey:
        settings = DatabaseSettings(url=SecretStr(postgres.url))
        await asyncio.to_thread(upgrade_schemas, settings, REGISTRY.schemas)
        async with open_database(settings, pool_size=1) as sessions:
            async with sessions.begin() as session:
                for name in promise:
                    await enqueue_in(session, CreateUser(name=name), key=name)
            async with JobClient(valkey.url) as client:
                for name in enqueue:
                    await client.enqueue(CreateUser(name=name), key=name)
            if works:
                own = environment | {"DATABASE_URL": postgres.url, "REDIS_URL": valkey.url}
                done = await asyncio.to_thread(warm.run, [sys.executable, "-m", "worker", "run", "--burst"], own)
                assert done.returncode == 0, done.stderr
            async with sessions() as session:
                return await _names(session)


async def _names(session: AsyncSession) -> list[str]:
    return list(await session.scalars(text("SELECT name FROM users ORDER BY id")))


async def test_of_a_restored_postgresql(folders: Folders, environment: dict[str, str]) -> None:
    """What was promised before the backup happens again, with its effect, though Redis still has its result."""
    await _act(folders, environment, promise=["first"])
    await _act(folders, environment, promise=["promised"], works=False)
    folders.save()
    before = await _act(folders, environment, enqueue=["direct"])
    folders.restore(folders.postgres)

    after = await _act(folders, environment)

    assert sorted(before) == ["direct", "first", "promised"]
    assert after == ["first", "promised"]


async def test_of_a_restored_redis(folders: Folders, environment: dict[str, str]) -> None:
    """Jobs that have ended since the backup are queued in it: their receipts answer, and nothing happens twice."""
    await _act(folders, environment, promise=["promised"], enqueue=["direct"], works=False)
    folders.save()
    before = await _act(folders, environment, promise=["later"], enqueue=["lost"])
    folders.restore(folders.valkey)

    after = await _act(folders, environment, enqueue=["new"])

    assert sorted(before) == ["direct", "later", "lost", "promised"]
    assert after == [*before, "new"]
