"""The servers of ``dev`` and ``demo``."""

from pathlib import Path

import pytest
from sqlalchemy import MetaData

from arqonce import Registry, Schema, UsageError
from arqonce.application import Application
from arqonce.commands.sandbox import open_sandbox

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_a_project_without_migrations_gets_servers_to_write_the_first(tmp_path: Path) -> None:
    """Alembic compares with a database, and this is the one that a newcomer has."""
    (tmp_path / "migrations").mkdir()
    schema = Schema("shop", MetaData(), tmp_path / "migrations", version_table="shop_version")

    with open_sandbox(tmp_path / "data", Application(name="shop", registry=Registry(schema=schema))) as sandbox:
        assert sandbox.servers.database_url.startswith("postgresql://")


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """In one line, with the cure; nothing is started."""
    (tmp_path / "file").touch()

    with (
        pytest.raises(UsageError, match=r"cannot be written to .*: name a folder of your own"),
        open_sandbox(tmp_path / "file" / "data", Application(name="shop")),
    ):
        pass
