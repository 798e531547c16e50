"""A folder in memory for the data of a server that lives for one run: files cost a disk milliseconds each."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - names there are random
_PREFIX = "arqonce-tests-"
_NEEDED = 2_000_000_000
"""Bytes that must be free: each process of pytest-xdist uses some 300 MB. A container has 64 MB, unless told so."""


@contextmanager
def folder_in_memory(otherwise: Path) -> Iterator[Path]:
    """Yield a new folder, which everybody may enter, and remove it at the end; ``otherwise``, where memory is small."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED):
        yield otherwise
        return
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_MEMORY))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove folders of runs that were killed."""
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists() and folder.stat().st_uid == os.geteuid():
            shutil.rmtree(folder, ignore_errors=True)
