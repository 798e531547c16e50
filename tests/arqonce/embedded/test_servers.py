"""Both servers in one directory, and what becomes of them when their owner dies."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from redis import Redis

from arqonce.embedded import EmbeddedServerError, Servers, open_servers, open_valkey

pytestmark = pytest.mark.usefixtures("starts_processes")

_OWNER = """
from arqonce.embedded import open_servers
with open_servers(Path({directory!r})) as servers:
    print(servers.postgres.pid, servers.valkey.pid, flush=True)
    time.sleep(60)
"""


def test_killed_owner_leaves_no_server(
    directory: Path,
    start_owner: Callable[[str], "subprocess.Popen[str]"],
    wait_until: Callable[[Callable[[], bool]], None],
    is_running: Callable[[int], bool],
) -> None:
    """The kernel tells the servers of their owner's death."""
    owner = start_owner(_OWNER.format(directory=str(directory)))
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert [is_running(pid) for pid in pids] == [True, True]

    owner.kill()

    wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_second_owner_is_told_who_holds_the_directory(
    directory: Path, start_owner: Callable[[str], "subprocess.Popen[str]"]
) -> None:
    """Two programs cannot share a directory."""
    owner = start_owner(_OWNER.format(directory=str(directory)))
    assert owner.stdout is not None
    owner.stdout.readline()

    with pytest.raises(EmbeddedServerError, match=rf"in use by the process {owner.pid}\. Cure: ") as caught:
        _open_and_close(directory)

    assert str(directory) in str(caught.value)


def test_directory_is_free_again_after_its_owner(directory: Path) -> None:
    """The lock ends with the context."""
    _open_and_close(directory)

    _open_and_close(directory)


def test_servers_stop_when_the_context_ends(directory: Path, is_running: Callable[[int], bool]) -> None:
    """Leaving the context leaves no process."""
    servers = _open_and_close(directory)

    assert not is_running(servers.postgres.pid)
    assert not is_running(servers.valkey.pid)


def test_urls_name_loopback_and_both_servers(directory: Path) -> None:
    """The URLs are what DATABASE_URL and REDIS_URL take."""
    servers = _open_and_close(directory)

    assert servers.database_url == servers.postgres.url
    assert servers.redis_url == servers.valkey.url


def test_terminal_interrupt_does_not_reach_the_servers(directory: Path) -> None:
    """Ctrl-C goes to a terminal's session, and the servers are in sessions of their own."""
    with open_servers(directory) as servers:
        sessions = {os.getsid(servers.postgres.pid), os.getsid(servers.valkey.pid), os.getsid(0)}

    assert len(sessions) == 3


def test_server_outlives_the_thread_that_opened_it(directory: Path) -> None:
    """The kernel reports the death of the forking thread, which must not be the caller's."""
    opening = open_valkey(directory / "valkey")
    thread = Thread(target=opening.__enter__)

    thread.start()
    thread.join()
    try:
        log = (directory / "valkey/valkey.log").read_text()
    finally:
        opening.__exit__(None, None, None)

    assert "Ready to accept connections" in log
    assert "SIGTERM" not in log


def test_bare_environment_is_enough(new_directory: Path) -> None:
    """No variable, no standard input and no permission for others is needed."""
    code = "from arqonce.embedded import open_servers, servers; "
    code += f"open_servers(servers.Path({str(new_directory)!r})).__enter__()"
    command = ["/bin/sh", "-c", 'umask 077; exec "$0" "$@" <&-', sys.executable, "-c", code]

    process = subprocess.run(command, env={}, cwd=Path(__file__).parents[3], check=False)

    assert process.returncode == 0


def _open_and_close(directory: Path) -> Servers:
    with open_servers(directory) as servers:
        Redis.from_url(servers.redis_url).ping()
    return servers
