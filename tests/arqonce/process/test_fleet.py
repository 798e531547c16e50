"""When processes are forked. ``test_supervisor`` has all that processes do."""

import os
import socket
import tempfile
from collections.abc import Sequence

import pytest

from arqonce.process import fleet


@pytest.mark.parametrize(
    ("threads", "opened", "forks"),
    [(["1"], "file", "yes"), (["1", "2"], "file", "no"), (["1"], "socket", "no"), (None, "file", "no")],
)
def test_a_process_is_forked_only_where_nothing_is_lost_or_shared_by_it(
    monkeypatch: pytest.MonkeyPatch, threads: Sequence[str] | None, opened: str, forks: str
) -> None:
    """A thread would be missing in a fork, a connection would be used by both; without ``/proc`` nobody knows."""
    with tempfile.TemporaryFile() as file, socket.socket() as connection:
        opens = file if opened == "file" else connection
        listed = {"/proc/self/task": threads, "/proc/self/fd": ["0", "1", "2", str(opens.fileno()), "999999"]}

        def listdir(folder: str) -> Sequence[str]:
            if (names := listed[folder]) is None:
                raise FileNotFoundError(folder)
            return names

        with monkeypatch.context() as patch:
            patch.setattr(os, "listdir", listdir)
            found = fleet._is_safe_to_fork()

    assert found is (forks == "yes")
