"""Prevents two programs from using one directory."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO

from arqonce.embedded.errors import EmbeddedServerError

_PATIENCE = timedelta(seconds=1)
"""Longest wait for the lock. If a program is killed while it forks a child, the lock is held until that child execs."""

_POLL = timedelta(milliseconds=10)
"""Interval of attempts in that time."""


@contextmanager
def hold_directory(directory: Path) -> Iterator[None]:
    """Create the directory if necessary and hold its lock. The kernel releases the lock when the holder dies.

    Raises:
        EmbeddedServerError: another process holds the lock, or the directory is not writable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+")
    except OSError as error:
        raise EmbeddedServerError(
            f"{directory} cannot be used: {error}. Cure: name a directory of your own."
        ) from error
    with lock:
        if not _take(lock):
            lock.seek(0)
            raise EmbeddedServerError(
                f"{directory} is in use by the process {lock.read().strip() or '(just starting)'}. "
                "Cure: stop that process, or name another directory."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _take(lock: IO[str]) -> bool:
    deadline = time.monotonic() + _PATIENCE.total_seconds()
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL.total_seconds())
        else:
            return True
