"""PostgreSQL as a child process."""

import asyncio
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from arqonce.embedded import EmbeddedServerError, open_postgres

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_lower_knows_all_of_unicode(directory: Path) -> None:
    """E-mail addresses and names are compared in lower case."""
    with open_postgres(directory / "postgres") as server:
        assert _query(server.url, "SELECT lower('ÉCOLE Ünï ΣΊΣΥΦΟΣ')") == "école ünï σίσυφοσ"


def test_data_is_kept_over_a_restart(directory: Path) -> None:
    """What was committed is there again, behind the same password."""
    with open_postgres(directory / "postgres") as server:
        _query(server.url, "CREATE TABLE IF NOT EXISTS kept AS SELECT 'kept' AS value")

    with open_postgres(directory / "postgres") as server:
        value = _query(server.url, "SELECT value FROM kept")

    assert value == "kept"


def test_password_is_needed_and_private(directory: Path) -> None:
    """Other users of this machine can reach the port."""
    with open_postgres(directory / "postgres") as server, pytest.raises(asyncpg.InvalidPasswordError):
        _query(server.url.replace("postgres:", "postgres:wrong"), "SELECT 1")

    data = (directory / "postgres/data").resolve()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (data, data.with_name("password"))]
    assert modes == [0o700, 0o600]


def test_settings_override(directory: Path) -> None:
    """The caller's settings win."""
    with open_postgres(directory / "postgres", settings={"max_connections": "17", "fsync": "off"}) as server:
        assert _query(server.url, "SELECT setting FROM pg_settings WHERE name = 'max_connections'") == "17"


def test_wrong_setting_is_shown_with_the_log_line(directory: Path) -> None:
    """The error says what the server said."""
    said = r'(?s)PostgreSQL ended with code 1.*unrecognized configuration parameter "no_such_setting".*Cure: '

    with pytest.raises(EmbeddedServerError, match=said):
        open_postgres(directory / "postgres", settings={"no_such_setting": "1"}).__enter__()


def test_lost_password_is_an_error_with_its_cure(directory: Path) -> None:
    """Nobody can read a password back out of the data."""
    _open_and_close(directory / "postgres")
    password = (directory / "postgres/data").resolve().with_name("password")
    kept = password.rename(password.with_name("kept"))

    with pytest.raises(EmbeddedServerError, match=r"password of the database is lost\. Cure: "):
        _open_and_close(directory / "postgres")

    kept.rename(password)


def test_kill_ends_busy_backends_too(
    directory: Path, wait_until: Callable[[Callable[[], bool]], None], is_running: Callable[[int], bool]
) -> None:
    """A postmaster that dies of SIGKILL would leave a busy backend behind, and the next start would fail."""
    busy = "SELECT count(*) FROM (SELECT generate_series(1, 1000000000)) AS busy"
    with open_postgres(directory / "postgres") as server:
        psql = subprocess.Popen([server.bin_directory / "psql", server.url, "-c", busy], stderr=subprocess.DEVNULL)
        find = "SELECT max(pid) FROM pg_stat_activity WHERE query LIKE '%AS busy'"
        wait_until(lambda: _query(server.url, find) is not None)
        backend = int(str(_query(server.url, find)))

        server.kill()

        backend_runs = is_running(backend)
    psql.kill()
    psql.wait()
    assert not backend_runs
    _open_and_close(directory / "postgres")


def test_leftover_server_is_stopped(directory: Path, is_running: Callable[[int], bool]) -> None:
    """Where the kernel does not tell of an owner's death, the next start stops what was left."""
    with open_postgres(directory / "postgres") as server:
        (directory / "postgres/lock").unlink()  # so the next start takes this server for a leftover

        _open_and_close(directory / "postgres")

        assert not is_running(server.pid)


def test_stale_pid_file_that_names_a_stranger_is_no_obstacle(
    directory: Path, stranger: "subprocess.Popen[bytes]"
) -> None:
    """PostgreSQL alone refuses to start if a process of its user has the id that is in its old pid file."""
    _open_and_close(directory / "postgres")
    (directory / "postgres/data/postmaster.pid").write_text(f"{stranger.pid}\n{directory}\n1\n5432\n\n\n\n")

    _open_and_close(directory / "postgres")

    assert stranger.poll() is None


def test_interrupted_initdb_is_no_obstacle(
    new_directory: Path,
    start_owner: Callable[[str], "subprocess.Popen[str]"],
    wait_until: Callable[[Callable[[], bool]], None],
) -> None:
    """A half-made cluster is never taken for a whole one."""
    owner = start_owner(
        f"from arqonce.embedded import open_postgres\nopen_postgres(Path({str(new_directory)!r})).__enter__()",
    )
    wait_until(lambda: any(new_directory.glob("data*/base/1/*")))

    owner.kill()
    owner.wait()

    with open_postgres(new_directory) as server:
        assert _query(server.url, "SELECT 1") == 1


def test_two_at_once_have_their_own_ports_in_any_directory(directory: Path, new_directory: Path) -> None:
    """Any number of servers run side by side; a path may be long and have spaces and quotes."""
    other_directory = new_directory / "a folder's name" / ("é" * 100) / ("long" * 50)

    with open_postgres(directory / "postgres") as one, open_postgres(other_directory) as other:
        directories = [_query(server.url, "SHOW data_directory") for server in (one, other)]

    assert directories == [str((folder / "data").resolve()) for folder in (directory / "postgres", other_directory)]


def _open_and_close(directory: Path) -> None:
    with open_postgres(directory) as server:
        _query(server.url, "SELECT 1")


def _query(url: str, sql: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())
