"""TLS to Redis and PostgreSQL: real servers of Debian, with certificates of an authority that is made for the run."""

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from cryptography import x509
from sqlalchemy import make_url

from arqonce import JobClient, SyncJobClient
from arqonce.connection.redis import build_sync_redis
from arqonce.connection.sync_direct import SyncDirectConnection
from arqonce.connection.tls import tls_problem
from arqonce.failures import QueueUnavailableError
from jobs import CreateUser
from tests import warm
from tests.conftest import StartWorker, wait_until_async
from tests.leaks import EMAIL, NAME, PASSWORD
from tests.security.certificates import Authority, Pair
from tests.security.programs import debian_program, free_port, running, unprivileged_account

pytestmark = pytest.mark.usefixtures("starts_processes")

POSTGRES = "/usr/lib/postgresql/15/bin"


@dataclass(frozen=True)
class Ports:
    """Two servers of each kind: with a certificate for ``localhost``, and with one that has expired."""

    redis: int
    expired_redis: int
    postgres: int
    expired_postgres: int


@dataclass(frozen=True)
class Files:
    """What clients need."""

    authority: Path
    stranger: Path
    """An authority that has signed nothing of the servers."""

    ours: Pair
    """The client's own certificate."""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Make a folder that the account of PostgreSQL may enter; pytest's own are closed."""
    with TemporaryDirectory(prefix="tls-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    """Make the authority that signs for the servers."""
    return Authority(directory, "authority")


@pytest.fixture(scope="module")
def files(directory: Path, authority: Authority) -> Files:
    """Make what clients need."""
    return Files(authority.file, Authority(directory, "stranger").file, authority.issue("client"))


@pytest.fixture(scope="module")
def ports(directory: Path, authority: Authority) -> Iterator[Ports]:
    """Start the servers. All of them want a certificate of the client as well."""
    good, expired = authority.issue("localhost"), authority.issue("localhost", lasts=timedelta(days=-1))
    with ExitStack() as stack:
        _initialise(directory)
        yield Ports(
            redis=stack.enter_context(_redis(directory / "redis", good, authority)),
            expired_redis=stack.enter_context(_redis(directory / "expired-redis", expired, authority)),
            postgres=stack.enter_context(_postgres(directory, "postgres", good, authority)),
            expired_postgres=stack.enter_context(_postgres(directory, "expired-postgres", expired, authority)),
        )


@contextmanager
def _redis(directory: Path, pair: Pair, authority: Authority) -> Iterator[int]:
    program = debian_program("redis-server", package="redis-server")
    directory.mkdir()
    port = free_port()
    options = {
        "bind": "127.0.0.1", "port": "0", "tls-port": str(port), "tls-auth-clients": "yes", "save": "",
        "tls-cert-file": str(pair.certificate), "tls-key-file": str(pair.key), "tls-ca-cert-file": str(authority.file),
        "dir": str(directory), "requirepass": PASSWORD,
    }  # fmt: skip
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    with running(command, port, directory / "server.log"):
        yield port


def _initialise(directory: Path) -> None:
    program = debian_program("initdb", package="postgresql-15", folder=POSTGRES)
    (directory / "password").write_text(PASSWORD)
    (directory / "template").mkdir()
    _hand_over(directory / "password", directory / "template")
    options = ["--no-sync", "--auth=scram-sha-256", "--username=postgres", f"--pwfile={directory / 'password'}"]
    subprocess.run(
        [program, *options, "--encoding=UTF8", "--locale=C", "-D", str(directory / "template")],
        user=_account(), capture_output=True, check=True, cwd="/",
    )  # fmt: skip


def _account() -> str | None:
    account = unprivileged_account()
    return account and account.pw_name


def _hand_over(*paths: Path) -> None:
    if account := _account():
        for path in paths:
            shutil.chown(path, account)


@contextmanager
def _postgres(directory: Path, name: str, pair: Pair, authority: Authority) -> Iterator[int]:
    program = debian_program("postgres", package="postgresql-15", folder=POSTGRES)
    data, port = directory / name, free_port()
    shutil.copytree(directory / "template", data)
    # TLS alone, and with a certificate of ours.
    (data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n")
    shutil.copy(pair.key, data / "server.key")
    _hand_over(data, *data.rglob("*"))
    options = {
        "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": "", "fsync": "off", "ssl": "on",
        "ssl_cert_file": str(pair.certificate), "ssl_key_file": str(data / "server.key"),
        "ssl_ca_file": str(authority.file), "log_error_verbosity": "terse",
    }  # fmt: skip
    command = [program, "-D", str(data), *(word for pair in options.items() for word in ("-c", "=".join(pair)))]
    with running(command, port, directory / f"{name}.log", account=_account()):
        yield port


def _redis_url(port: int, authority: Path, ours: Pair | None, *, host: str = "localhost") -> str:
    own = f"&ssl_certfile={ours.certificate}&ssl_keyfile={ours.key}" if ours else ""
    return f"rediss://:{PASSWORD}@{host}:{port}/0?ssl_ca_certs={authority}{own}"


def _database_url(port: int, authority: Path, ours: Pair | None, *, host: str = "localhost") -> str:
    own = f"&sslcert={ours.certificate}&sslkey={ours.key}" if ours else ""
    return f"postgresql://postgres:{PASSWORD}@{host}:{port}/postgres?sslmode=verify-full&sslrootcert={authority}{own}"


def _run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return warm.run([sys.executable, "-m", "worker", *command], os.environ | variables)


@pytest.fixture
def urls(ports: Ports, files: Files) -> dict[str, str]:
    """Say how to reach the good servers as they want it."""
    return {
        "REDIS_URL": _redis_url(ports.redis, files.authority, files.ours),
        "DATABASE_URL": _database_url(ports.postgres, files.authority, files.ours),
    }


@contextmanager
def _sentinel(directory: Path, ports: Ports, authority: Authority) -> Iterator[int]:
    """Run a Sentinel that speaks TLS alone, with its clients and with the primary."""
    directory.mkdir()
    pair, port = authority.issue("localhost"), free_port()
    settings = [
        "bind 127.0.0.1", "port 0", f"tls-port {port}", "tls-replication yes", "tls-auth-clients yes",
        f"tls-cert-file {pair.certificate}", f"tls-key-file {pair.key}", f"tls-ca-cert-file {authority.file}",
        f"dir {directory}", "sentinel resolve-hostnames yes", "sentinel announce-hostnames yes",
        f"sentinel monitor mymaster localhost {ports.redis} 1", f"sentinel auth-pass mymaster {PASSWORD}",
    ]  # fmt: skip
    (directory / "sentinel.conf").write_text("\n".join(settings) + "\n")
    command = [debian_program("redis-server", package="redis-server"), str(directory / "sentinel.conf"), "--sentinel"]
    with running(command, port, directory / "sentinel.log"):
        yield port


async def test_sentinels_and_the_primary_are_verified_alike(
    directory: Path, ports: Ports, authority: Authority, files: Files
) -> None:
    """``rediss+sentinel://`` has the options of ``rediss://``; who is signed by another authority is not trusted."""
    with _sentinel(directory / "sentinel", ports, authority) as port:
        good, strange = (
            _redis_url(port, trusted, files.ours).replace("rediss:", "rediss+sentinel:").replace("/0?", "/mymaster/0?")
            for trusted in (files.authority, files.stranger)
        )
        async with JobClient(good) as client:
            await client.ping()
        with SyncJobClient(good) as blocking:
            blocking.ping()
        with pytest.raises(QueueUnavailableError, match=r"TLS with Redis at mymaster by .* not trusted"):
            async with JobClient(strange):
                pass
        with pytest.raises(QueueUnavailableError, match="not trusted"), SyncJobClient(strange):
            pass


async def test_a_job_runs_over_tls(urls: dict[str, str], start_worker: StartWorker) -> None:
    """Migration, worker process and client, each with a verified server and a certificate of its own."""
    migrated = _run("migrate", **urls)
    worker = start_worker(**urls)

    async with JobClient(urls["REDIS_URL"]) as client:
        handle = await client.enqueue(CreateUser(name=NAME, email=EMAIL))
        user = await handle.result(timeout=timedelta(seconds=20))
    with SyncJobClient(urls["REDIS_URL"]) as blocking:
        later = blocking.enqueue(CreateUser(name=NAME), delay=timedelta(milliseconds=300))
        same = await asyncio.to_thread(later.result, timeout=timedelta(seconds=20))

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert (user.name, same.name) == (NAME, NAME)
    assert worker.stop() == 0


def test_threads_share_a_connection_with_tls(urls: dict[str, str]) -> None:
    """Some read while others write, records larger than TLS sends at once among them: each gets its own answer."""
    connection = SyncDirectConnection(build_sync_redis(urls["REDIS_URL"]))
    words = [f"{number} " * (1 + number % 40 * 1000) for number in range(200)]

    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda word: connection.ask(("ECHO", word)), words))

    assert answers == [[word.encode()] for word in words]
    connection.close()


@pytest.mark.parametrize("command", ["redis", "postgres"])
async def test_nothing_is_sent_in_the_clear(ports: Ports, command: str) -> None:
    """The servers of these tests take no connection without TLS, so that the tests prove something."""
    if command == "redis":
        with pytest.raises(QueueUnavailableError):
            async with JobClient(f"redis://:{PASSWORD}@localhost:{ports.redis}/0"):
                pass
        return
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(f"postgresql://postgres:{PASSWORD}@localhost:{ports.postgres}/postgres?sslmode=disable")


WRONG = {
    "authority": "its certificate is from an authority that is not trusted: name the authority's file with ?",
    "host": "its certificate is for another host name: connect by a name that it contains",
    "expired": "its certificate has expired or is not valid yet: renew it, or set the clock",
    "plain": "it does not use TLS on this port: turn TLS on, or correct the port",
}


def _require_one_line(ended: "subprocess.CompletedProcess[str]", expected: str, *, code: int = 4) -> None:
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (code, "", 1)
    assert expected in ended.stderr
    assert PASSWORD not in ended.stderr


@pytest.mark.parametrize("wrong", ["authority", "host", "expired"])
def test_a_wrong_redis_is_refused(wrong: str, ports: Ports, files: Files) -> None:
    """A worker ends with one line that names the cure, without a traceback and a password."""
    url = {
        "authority": _redis_url(ports.redis, files.stranger, files.ours),
        "host": _redis_url(ports.redis, files.authority, files.ours, host="127.0.0.1"),
        "expired": _redis_url(ports.expired_redis, files.authority, files.ours),
    }[wrong]

    ended = _run("run", DATABASE_URL="postgresql://nobody@localhost:1/none", REDIS_URL=url)

    _require_one_line(ended, WRONG[wrong])


def test_a_redis_without_tls_is_refused(files: Files, valkey_url: str) -> None:
    """It waits for the end of a line that never comes, so that all we see is its silence."""
    url = _redis_url(make_url(valkey_url).port or 0, files.authority, None) + "&socket_connect_timeout=0.2"

    ended = _run("status", REDIS_URL=url)

    _require_one_line(ended, "cannot be reached (it does not answer in time): is it running, with TLS on this port")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_postgres_is_refused(wrong: str, ports: Ports, files: Files, postgres_url: str) -> None:
    """A migration ends with one line that names the cure, without a traceback and a password."""
    url = {
        "authority": _database_url(ports.postgres, files.stranger, files.ours),
        "host": _database_url(ports.postgres, files.authority, files.ours, host="127.0.0.1"),
        "expired": _database_url(ports.expired_postgres, files.authority, files.ours),
        "plain": _database_url(make_url(postgres_url).port or 0, files.authority, None),
    }[wrong]

    ended = _run("migrate", DATABASE_URL=url)

    _require_one_line(ended, WRONG[wrong])


def test_without_our_certificate_we_stay_out(ports: Ports, files: Files) -> None:
    """Servers that want one say so, each in one line."""
    redis = _run("status", REDIS_URL=_redis_url(ports.redis, files.authority, None))
    postgres = _run("migrate", DATABASE_URL=_database_url(ports.postgres, files.authority, None))

    _require_one_line(redis, "certificate")  # the server's own word for it may be lost when it hangs up
    _require_one_line(postgres, "allow the user in pg_hba.conf")


def test_a_worker_refuses_a_wrong_postgres_too(urls: dict[str, str], ports: Ports, files: Files) -> None:
    """Not the migration alone."""
    ended = _run("run", **urls | {"DATABASE_URL": _database_url(ports.postgres, files.stranger, files.ours)})

    assert ended.returncode == 4
    assert WRONG["authority"] in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_wrong_option_or_file_is_named(files: Files) -> None:
    """It is no server that cannot be reached."""
    redis = _run("status", REDIS_URL=_redis_url(1, Path("/no/such.pem"), files.ours))
    postgres = _run("migrate", DATABASE_URL=_database_url(1, Path("/no/such.pem"), files.ours))

    bogus = _run("status", REDIS_URL=f"rediss://:{PASSWORD}@localhost:1/0?ssl_cert_reqs=perhaps")

    _require_one_line(bogus, "has a wrong value for ssl_cert_reqs: it is one of required, optional, none", code=3)
    _require_one_line(redis, "names a file with ssl_ca_certs that does not exist", code=3)
    assert "names a file with sslrootcert that does not exist" in postgres.stderr


BROKEN_RULES = {
    x509.AuthorityKeyIdentifier: "(Missing Authority Key Identifier): reissue it",
    x509.SubjectKeyIdentifier: "(Missing Subject Key Identifier): reissue it",
    x509.KeyUsage: "(CA cert does not include key usage extension): reissue it",
}


@pytest.mark.parametrize("extension", BROKEN_RULES)
def test_what_a_certificate_lacks_is_named(tmp_path: Path, extension: type[x509.ExtensionType]) -> None:
    """Private authorities that were good enough until Python 3.13 enforced RFC 5280 have to be made anew."""
    authority = Authority(tmp_path, "authority", without=extension)

    problem = tls_problem(_refusal_of(authority, authority.issue("localhost")), authority="x")

    assert problem is not None
    assert BROKEN_RULES[extension] in problem


def _refusal_of(authority: Authority, pair: Pair) -> ssl.SSLError:
    """Shake hands in memory as Python 3.13 does, and return what the client finds wrong."""
    client = ssl.create_default_context(cafile=authority.file)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.certificate, pair.key)
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(received, sent, server_hostname="localhost")
    theirs = server.wrap_bio(sent, received, server_side=True)
    for side in (ours, theirs):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    with pytest.raises(ssl.SSLError) as refused:
        ours.do_handshake()
    return refused.value


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python enforces it since 3.13")
@pytest.mark.usefixtures("ports")  # they make what a PostgreSQL is copied from
async def test_a_redis_that_breaks_a_rule_is_refused(directory: Path) -> None:
    """As any other that cannot be trusted. For PostgreSQL neither libpq nor asyncpg asks OpenSSL for these rules."""
    authority = Authority(directory, "unidentified", without=x509.AuthorityKeyIdentifier)
    pair, ours = authority.issue("localhost"), authority.issue("client")
    with _redis(directory / "unidentified", pair, authority) as port:
        ended = await asyncio.to_thread(_run, "status", REDIS_URL=_redis_url(port, authority.file, ours))
    with _postgres(directory, "unidentified-postgres", pair, authority) as port:
        await wait_until_async(lambda: _lets_in(_database_url(port, authority.file, ours)), 20)

    _require_one_line(ended, BROKEN_RULES[x509.AuthorityKeyIdentifier])


async def _lets_in(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url)
    except asyncpg.CannotConnectNowError:  # it takes connections before it has started
        return False
    await connection.close()
    return True


def test_other_errors_are_none_of_tls() -> None:
    """They keep their own explanations."""
    assert tls_problem(ConnectionRefusedError(), authority="x") is None
