"""Keeps two programs out of one directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded.errors import EmbeddedServerError


@contextmanager
def hold_directory(directory: Path) -> Iterator[None]:
    """Make the directory if need be and hold its lock; the kernel frees it when the holder dies.

    Raises:
        EmbeddedServerError: somebody holds it, or it belongs to another user.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a+")
    except PermissionError as error:
        raise EmbeddedServerError(
            f"{directory} is not ours to write in ({error}). Cure: name a directory of your own."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise EmbeddedServerError(
                f"{directory} is in use by the process {lock.read().strip() or '(just starting)'}. "
                "Cure: stop that process, or name another directory."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
