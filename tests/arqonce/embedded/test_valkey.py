"""Valkey as a child process."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from arqonce.embedded import EmbeddedServerError, open_valkey

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_data_is_kept_over_a_restart(directory: Path) -> None:
    """What was acknowledged is there again."""
    with open_valkey(directory / "valkey") as server:
        _client(server.url).set("key", "kept")

    with open_valkey(directory / "valkey") as server:
        value = _client(server.url).get("key")

    assert value == "kept"


def test_settings_of_a_job_queue(directory: Path) -> None:
    """Nothing is evicted, every write is logged, and only this machine gets in."""
    with open_valkey(directory / "valkey") as server:
        config = _client(server.url).config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "bind")

    assert config == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "save": "",
        "bind": "127.0.0.1",
    }


def test_settings_override(directory: Path) -> None:
    """The caller's settings win, also over ours."""
    with open_valkey(directory / "valkey", settings={"appendfsync": "always", "save": "60 1000"}) as server:
        config = _client(server.url).config_get("appendfsync", "save")

    assert config == {"appendfsync": "always", "save": "60 1000"}


def test_a_password_is_part_of_the_url(directory: Path) -> None:
    """Whoever has the URL can log in, whatever the password has in it."""
    with open_valkey(directory / "valkey", settings={"requirepass": "p@ss/word:1"}) as server:
        answer = _client(server.url).ping()

    assert answer is True


def test_server_can_come_back_on_its_port(directory: Path) -> None:
    """A test of an outage needs the same URL again."""
    with open_valkey(directory / "valkey") as server:
        first = server.url
        server.kill()

    with open_valkey(directory / "valkey", settings={"port": first.split(":")[2].removesuffix("/0")}) as server:
        second = server.url

    assert second == first


def test_wrong_setting_is_shown_with_the_log_line(directory: Path) -> None:
    """The error says what the server said."""
    with pytest.raises(EmbeddedServerError, match=r"(?s)Valkey ended with code 1.*no-such-setting.*Cure: "):
        open_valkey(directory / "valkey", settings={"no-such-setting": "1"}).__enter__()


def test_stop_and_kill_twice_do_no_harm(directory: Path) -> None:
    """A server that has ended stays so, without an error."""
    with open_valkey(directory / "valkey") as server:
        server.kill()
        server.kill()
        server.stop()

    assert server.process.returncode == -9


def test_leftover_server_is_stopped(directory: Path, is_running: Callable[[int], bool]) -> None:
    """Where the kernel does not tell of an owner's death, the next start stops what was left."""
    with open_valkey(directory / "valkey") as server:
        (directory / "valkey/lock").unlink()  # so the next start takes this server for a leftover

        with open_valkey(directory / "valkey") as successor:
            _client(successor.url).ping()

        assert not is_running(server.pid)


def test_pid_file_that_names_a_stranger_harms_nobody(directory: Path, stranger: "subprocess.Popen[bytes]") -> None:
    """A process id is used again by the system."""
    (directory / "valkey").mkdir(exist_ok=True)
    (directory / "valkey/valkey.pid").write_text(f"{stranger.pid}\n")

    with open_valkey(directory / "valkey"):
        pass

    assert stranger.poll() is None


def test_files_are_private(directory: Path) -> None:
    """Jobs hold people's data."""
    with open_valkey(directory / "valkey"):
        modes = {path.stat().st_mode & 0o077 for path in (directory / "valkey").rglob("*.aof")}

    assert modes == {0}


def test_two_at_once_have_their_own_ports(directory: Path, new_directory: Path) -> None:
    """Any number of servers run side by side."""
    with open_valkey(directory / "valkey") as one, open_valkey(new_directory) as other:
        pids = [_client(server.url).info("server")["process_id"] for server in (one, other)]

    assert pids == [one.pid, other.pid]


def test_path_may_be_long_and_have_spaces(new_directory: Path) -> None:
    """No socket's path limits the directory."""
    directory = new_directory / "a folder's name" / ("é" * 100) / ("long" * 50)

    with open_valkey(directory) as server:
        where = _client(server.url).config_get("dir")

    assert where == {"dir": os.fspath(directory)}


def _client(url: str) -> Any:  # noqa: ANN401  redis-py's types mix in its asynchronous client
    return Redis.from_url(url, decode_responses=True)
