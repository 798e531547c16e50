"""The users of ``deploy/redis/users.acl`` in real servers: what each may not do.

What they may do is shown by the end-to-end tests, which run under them.
"""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import AuthenticationError, ResponseError

from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import build_redis
from arqonce.connection.tracking import TrackingProof
from tests.leaks import PASSWORD
from tests.rights import DEPLOY, acl_rules
from tests.security.programs import debian_program, free_port, running, valkey_program

pytestmark = pytest.mark.usefixtures("starts_processes")

USERS = ("producer", "worker", "relay", "operator")


@pytest.fixture(scope="module", params=["valkey", "redis"])
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a server with the ACL file, and one user more for the tests."""
    is_valkey = request.param == "valkey"
    program = valkey_program() if is_valkey else debian_program("redis-server", package="redis-server")
    directory, port = tmp_path_factory.mktemp("acl"), free_port()
    (directory / "users.acl").write_text("\n".join([*acl_rules(), f"user tests reset on >{PASSWORD} +@all ~* &*\n"]))
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with running([*command, "--aclfile", str(directory / "users.acl")], port, directory / "server.log"):
        yield port


def _connect(port: int, user: str) -> Redis:
    return Redis(port=port, username=user, password=PASSWORD, decode_responses=True)


def _denial(port: int, user: str, command: tuple[Any, ...]) -> str:
    with _connect(port, user) as redis:
        try:
            return f"allowed: {redis.execute_command(*command)!r}"
        except ResponseError as error:
            return "denied" if "ermission" in str(error) or "can't" in str(error) else str(error)


FORBIDDEN_TO_ALL: dict[str, tuple[Any, ...]] = {
    "wipe": ("FLUSHALL",),
    "wipe one": ("FLUSHDB",),
    "list all keys": ("KEYS", "*"),
    "walk all keys": ("SCAN", "0"),
    "read the settings": ("CONFIG", "GET", "*"),
    "change the settings": ("CONFIG", "SET", "dir", "/"),
    "change the users": ("ACL", "SETUSER", "producer", "allcommands"),
    "see the users": ("ACL", "LIST"),
    "end the server": ("SHUTDOWN", "NOSAVE"),
    "copy the server": ("REPLICAOF", "127.0.0.1", "1"),
    "watch everybody": ("MONITOR",),
    "end connections": ("CLIENT", "KILL", "TYPE", "normal"),
    "stop everybody": ("CLIENT", "PAUSE", "1000"),
    "see the modules": ("MODULE", "LIST"),
    "forget scripts": ("SCRIPT", "FLUSH"),
    "hold up the server": ("SAVE",),
    "move a key away": ("RENAME", "arq:queue", "arq:queue:2"),
    "copy a key away": ("DUMP", "arq:job:1"),
    "write elsewhere": ("SET", "elsewhere", "x"),
    "read elsewhere": ("GET", "elsewhere"),
    "tell others": ("PUBLISH", "channel", "x"),
    "wipe by a script": ("EVAL", "return redis.call('FLUSHALL')", "0"),
    "write elsewhere by a script": ("EVAL", "return redis.call('SET', 'elsewhere', 'x')", "0"),
}
FORBIDDEN_TO: dict[str, dict[str, tuple[Any, ...]]] = {
    "producer": {
        "read a job": ("GET", "arq:job:1"),
        "read a job by writing": ("SET", "arq:job:1", "x", "GET"),
        "read a job by a script": ("EVAL", "return redis.call('GET', KEYS[1])", "1", "arq:job:1"),
        "forge an answer": ("SET", "arq:result:1", "x"),
        "forge an answer by a script": ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "arq:result:1"),
        "see what is queued": ("ZRANGE", "arq:queue", "0", "-1"),
        "remove what is queued": ("ZREM", "arq:queue", "1"),
        "remove a job": ("DEL", "arq:job:1"),
        "lock a job": ("SET", "arq:in-progress:1", "x"),
        "count attempts": ("SET", "arq:retry:1", "99"),
        "abort a job": ("ZADD", "arq:abort", "1", "1"),
        "take the relays' epoch": ("SET", "arqonce:epoch", "x"),
    },
    "worker": {"see what the server tells of clients": ("CLIENT", "LIST")},
    "relay": {
        "read a job": ("GET", "arq:job:1"),
        "read an answer": ("GET", "arq:result:1"),
        "forge an answer": ("SET", "arq:result:1", "x"),
        "see what is queued": ("ZRANGE", "arq:queue", "0", "-1"),
        "remove a job": ("DEL", "arq:job:1"),
        "lock a job": ("SET", "arq:in-progress:1", "x"),
    },
    "operator": {
        "lock a job": ("SET", "arq:in-progress:1", "x"),
        "lock a job by a script": ("EVAL", "return redis.call('SET', 'arq:in-progress:1', 'x')", "0"),
        "take the relays' epoch": ("SET", "arqonce:epoch", "x"),
    },
}


@pytest.mark.parametrize("user", USERS)
def test_nobody_may_do_more_than_its_part(port: int, user: str) -> None:
    """Each command is sent by each user, and each is denied."""
    forbidden = FORBIDDEN_TO_ALL | FORBIDDEN_TO[user]

    answers = {name: _denial(port, user, command) for name, command in forbidden.items()}

    assert answers == dict.fromkeys(forbidden, "denied")


@pytest.mark.parametrize("user", USERS)
def test_no_administration_among_the_rights(port: int, user: str) -> None:
    """Of all commands that the server itself calls dangerous or administrative, nobody has any but INFO."""
    with _connect(port, "tests") as redis:
        risky = {name for category in ("admin", "dangerous") for name in redis.acl_cat(category)}
        words = redis.acl_getuser(user)["commands"]
    granted = {word.removeprefix("+") for word in words if word.startswith("+")}

    assert "ping" in granted
    assert granted & risky <= {"info"}


@pytest.mark.parametrize("user", ["producer", "worker", "operator"])
async def test_whoever_waits_may_see_that_changes_are_told(port: int, user: str) -> None:
    """The key that is read and written for that is one of a job, which each may write."""
    async with build_redis(f"redis://{user}:{PASSWORD}@127.0.0.1:{port}/0", AsyncRedis) as redis:
        direct, heard = DirectConnection(redis, tracks=True), asyncio.Event()
        proof = TrackingProof(direct, redis, lambda: None)
        direct.on_change = lambda _keys: heard.set()

        proof.begin(await direct.open())
        await asyncio.wait_for(heard.wait(), 5)

        assert direct.is_tracking
        proof.close()
        direct.close()


def test_strangers_stay_out(port: int) -> None:
    """Without a name and a password, with a wrong one, and as the user that every server has by default."""
    strangers: list[dict[str, str]] = [{}, {"username": "producer", "password": "wrong"}, {"password": ""}]
    for given in strangers:
        with pytest.raises(AuthenticationError), Redis(port=port, **given) as redis:  # type: ignore[arg-type] # texts
            redis.ping()


def test_the_file_holds_no_password(tmp_path: Path) -> None:
    """Only hashes: who reads the file cannot log in. A user whose password is missing is left out."""
    (tmp_path / "redis_worker_password").write_text(f"{PASSWORD}\n")
    command = ["sh", str(DEPLOY / "redis" / "make-acl"), str(tmp_path)]

    made = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert PASSWORD not in made
    assert [line.split()[1] for line in made.splitlines()] == ["default", "worker"]


def test_a_short_password_is_refused(tmp_path: Path) -> None:
    """An empty file would else let everybody in who tries an empty password."""
    (tmp_path / "redis_worker_password").write_text("\n")
    command = ["sh", str(DEPLOY / "redis" / "make-acl"), str(tmp_path)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "redis_worker_password: a password of at least 16 characters is needed" in done.stderr
