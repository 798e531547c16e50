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
