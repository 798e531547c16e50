"""The lock of a directory."""

import fcntl
from pathlib import Path
from threading import Timer

import pytest

from arqonce.embedded import EmbeddedServerError
from arqonce.embedded.lock import hold_directory


def test_lock_of_a_program_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    """A restart right after a crash is not refused."""
    with hold_directory(tmp_path):
        pass
    lock = (tmp_path / "lock").open()
    fcntl.flock(lock, fcntl.LOCK_EX)
    Timer(0.1, lock.close).start()

    with hold_directory(tmp_path):
        ended = lock.closed

    assert ended


def test_directory_that_cannot_be_written_is_an_error_with_its_cure(tmp_path: Path) -> None:
    """Another user's directory is not for us."""
    (tmp_path / "lock").mkdir()

    with pytest.raises(EmbeddedServerError, match=r"cannot be used: .* Cure: name a directory of your own"):
        hold_directory(tmp_path).__enter__()
