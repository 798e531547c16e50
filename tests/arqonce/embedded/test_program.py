"""Starting a server on a free port."""

import socket
from pathlib import Path

import pytest
from redis import Redis

from arqonce.embedded import open_valkey, program

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_port_that_somebody_took_is_given_up(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the choice of a port and the bind there is time for others."""
    free_port = program.free_port
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        ports = iter([stranger.getsockname()[1], free_port()])
        monkeypatch.setattr(program, "free_port", lambda: next(ports))

        with open_valkey(directory / "valkey") as server:
            answer = Redis.from_url(server.url).ping()

    assert answer is True


def test_a_server_keeps_its_port(directory: Path) -> None:
    """A URL that was exported stays valid. A port that somebody has taken meanwhile is theirs."""
    with open_valkey(directory / "valkey") as first:
        before = first.url
    with open_valkey(directory / "valkey") as second:
        again = second.url

    port = int(before.rpartition(":")[2].removesuffix("/0"))
    with socket.create_server(("127.0.0.1", port)), open_valkey(directory / "valkey") as third:
        elsewhere = third.url

    assert again == before
    assert elsewhere != before
