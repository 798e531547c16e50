"""A standby of PostgreSQL as a child process."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from arqonce.embedded import EmbeddedServerError, PostgresServer, StandbyServer, open_postgres, open_standby
from tests.arqonce.embedded.conftest import WaitUntil

pytestmark = pytest.mark.usefixtures("starts_processes")


@pytest.fixture
def primary(directory: Path) -> Iterator[PostgresServer]:
    """Run a primary that waits for its standby at each commit."""
    settings = {"synchronous_standby_names": "*", "synchronous_commit": "local"}  # local until a session asks for more
    with open_postgres(directory / "primary", settings=settings) as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer, directory: Path) -> Iterator[StandbyServer]:
    """Run a standby made for this test."""
    with open_standby(primary, directory / "standby") as server:
        yield server
    shutil.rmtree(directory / "standby")


async def test_a_standby_answers_and_refuses_to_write(standby: StandbyServer) -> None:
    """A question whether it is there does not tell it from a primary."""
    connection = await asyncpg.connect(standby.url)

    assert await connection.fetchval("SELECT 1") == 1
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await connection.execute("CREATE TABLE refused ()")
    await connection.close()
    assert standby.is_standby


async def test_what_a_synchronous_primary_has_committed_survives_it(
    primary: PostgresServer, standby: StandbyServer, wait_until: WaitUntil
) -> None:
    """The primary is killed, the standby is promoted, and has it, and takes more."""
    wait_until(lambda: standby.is_streaming)
    connection = await asyncpg.connect(primary.url, server_settings={"synchronous_commit": "on"})
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    primary.kill()

    standby.promote()

    promoted = await asyncpg.connect(standby.url)
    assert await promoted.fetchval("UPDATE kept SET value = value + 1 RETURNING value") == 8
    await promoted.close()
    connection.terminate()
    assert not standby.is_standby


def test_a_promoted_standby_has_a_standby_of_its_own(
    standby: StandbyServer, new_directory: Path, wait_until: WaitUntil
) -> None:
    """So that failovers can follow each other."""
    standby.promote()

    with open_standby(standby, new_directory) as follower:
        wait_until(lambda: follower.is_streaming)
        assert follower.is_standby


def test_promoting_twice_is_an_error(standby: StandbyServer) -> None:
    """The second time there is nothing to promote."""
    standby.promote()

    with pytest.raises(EmbeddedServerError, match=r"recovery is not in progress"):
        standby.promote()


def test_without_a_primary_there_is_no_standby(primary: PostgresServer, new_directory: Path) -> None:
    """And nothing of it is left."""
    primary.kill()

    with pytest.raises(EmbeddedServerError, match=r"(?s)pg_basebackup failed.*Cure: "):
        open_standby(primary, new_directory).__enter__()

    assert not (new_directory / "data").exists()


def test_its_files_are_private(standby: StandbyServer) -> None:
    """The data is a copy of people's data, and the recovery settings lead to the password."""
    home = Path(os.path.realpath(standby.log_path.parent / "data")).parent

    modes = {path.name: path.stat().st_mode & 0o077 for path in (home / "data", home / "passfile", home / "password")}

    assert set(modes.values()) == {0}
