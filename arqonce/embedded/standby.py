"""Runs a streaming standby of an embedded PostgreSQL: a base backup that follows it until it is promoted."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pwd import struct_passwd
from types import MappingProxyType
from urllib.parse import urlsplit

from arqonce.embedded.account import unprivileged_account
from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.home import choose_home
from arqonce.embedded.lock import hold_directory
from arqonce.embedded.postgres import PostgresServer, open_postgres
from arqonce.embedded.process import run_tool
from arqonce.embedded.program import open_private

_SETTINGS = {"wal_retrieve_retry_interval": "100ms"}
"""How soon a standby that has lost its primary reconnects; the server's default is 5 s."""

_PROMOTION_LIMIT_S = 30
"""Longest wait for a promotion, in seconds; it usually takes less than one."""

_PROMOTE = f"SELECT pg_promote(wait => true, wait_seconds => {_PROMOTION_LIMIT_S})"
_IS_STREAMING = "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
_IS_STANDBY = "SELECT pg_is_in_recovery()"


@dataclass(frozen=True, kw_only=True)
class StandbyServer(PostgresServer):
    """A hot standby: it accepts queries, rejects writes, and follows its primary until it is promoted."""

    @property
    def is_standby(self) -> bool:
        """Whether it has not been promoted yet. Opens one connection."""
        return self._ask(_IS_STANDBY) == "t"

    @property
    def is_streaming(self) -> bool:
        """Whether it is receiving from a primary. Opens one connection."""
        return self._ask(_IS_STREAMING) == "t"

    def promote(self) -> None:
        """Promote the standby, and return when it can be written to. The old primary is not changed.

        Raises:
            EmbeddedServerError: the standby has ended, is already a primary, or took longer than 30 s.
        """
        if self._ask(_PROMOTE) != "t":
            raise EmbeddedServerError(f"PostgreSQL was not promoted in time. Cure: see {self.log_path}.")

    def _ask(self, statement: str) -> str:
        """Execute a statement and return its single value as text."""
        home = (self.log_path.parent / "data").resolve().parent
        conninfo = _conninfo(self.url, home / "passfile")
        code, output = run_tool(
            [self.bin_directory / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "-c", statement, conninfo],
            account=None,
        )
        if code != 0:
            raise EmbeddedServerError(f"The standby refused: {output}\nCure: see {self.log_path}.")
        return output.strip()


@contextmanager
def open_standby(
    primary: PostgresServer, directory: Path, *, settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[StandbyServer]:
    """Run a hot standby of a running ``primary`` with its data in ``directory``; ``settings`` are as for a primary.

    Existing data is started unchanged: a standby follows the primary that it was made from, on the port that this had
    then; a promoted one remains a primary. User and password are the primary's. Replication is asynchronous unless the
    primary's ``synchronous_standby_names`` says otherwise. Creating a standby takes about a second.

    Raises:
        EmbeddedServerError: no base backup could be taken, the directory is in use, or the server does not start.
    """
    directory = directory.resolve()
    account = unprivileged_account()
    with hold_directory(directory):
        home = choose_home(directory, account)
        if not (home / "data").exists():
            _copy_cluster(primary, home, account)
    with open_postgres(directory, settings={**_SETTINGS, **settings}) as server:
        yield StandbyServer(**vars(server))


def _copy_cluster(primary: PostgresServer, home: Path, account: struct_passwd | None) -> None:
    """Create ``home/data`` atomically, by a base backup whose configuration names the primary."""
    for unfinished in home.glob("data.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    password = urlsplit(primary.url).password or ""
    passfile = home / "passfile"
    _write_private(passfile, f"*:*:*:*:{password}\n", account)
    _write_private(home / "password", password, account)
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=home))
    code, output = run_tool(
        [
            primary.bin_directory / "pg_basebackup",
            f"--pgdata={fresh}",
            f"--dbname={_conninfo(primary.url, passfile)}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ],
        account=None,  # unlike the server, pg_basebackup may run as root
    )
    if code != 0:
        raise EmbeddedServerError(
            f"pg_basebackup failed:\n{output}\nCure: check that the primary runs, and that it has a free WAL sender."
        )
    if account:
        for path in (fresh, *fresh.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    fresh.rename(home / "data")


def _write_private(path: Path, text: str, account: struct_passwd | None) -> None:
    with open_private(path) as file:
        file.write(text.encode())
    if account:
        os.chown(path, account.pw_uid, account.pw_gid)


def _conninfo(url: str, passfile: Path) -> str:
    """Return the connection string, without the password, because all users can see a command line."""
    quoted = str(passfile).replace("\\", "\\\\").replace("'", "\\'")
    return f"host=127.0.0.1 port={urlsplit(url).port} user=postgres dbname=postgres passfile='{quoted}'"
