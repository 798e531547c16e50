"""A small file system for the tables of a PostgreSQL, which can be filled. Needs root and permission to mount.

The write-ahead log is not on it: a server that cannot write its log ends, which is another fault.
"""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_SIZE = 192 * 1024 * 1024
"""Size in bytes: several times what a run stores. It uses that much memory only while it is full."""


class SmallDisk:
    """A file system mounted over the folder ``base`` of a data directory. Create it while the server is stopped."""

    def __init__(self, data: Path) -> None:
        """Mount it and copy the tables to it."""
        self._base = data.resolve() / "base"
        self._filler = self._base / "filler"
        status = self._base.stat()
        with tempfile.TemporaryDirectory(prefix="small-disk-") as aside:
            _run("cp", "-a", f"{self._base}/.", aside)
            options = f"size={_SIZE},mode=0700,uid={status.st_uid},gid={status.st_gid}"
            _run("mount", "-t", "tmpfs", "-o", options, "chaos", str(self._base))
            _run("cp", "-a", f"{aside}/.", str(self._base))

    def fill(self) -> None:
        """Use up all free space. Pages that are already allocated can still be written to."""
        with self._filler.open("ab") as filler:
            size = os.statvfs(self._base).f_bavail * os.statvfs(self._base).f_frsize
            while size >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), os.fstat(filler.fileno()).st_size, size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Free the space again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it as soon as it is no longer in use."""
        with suppress(subprocess.CalledProcessError):  # already unmounted
            _run("umount", "--lazy", str(self._base))


@cache
def can_mount() -> bool:
    """Return whether we may mount such a disk on this machine."""
    if sys.platform != "linux" or os.geteuid() != 0 or not all(map(shutil.which, ("mount", "umount", "cp"))):
        return False
    with tempfile.TemporaryDirectory(prefix="small-disk-") as place:
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=64k", "chaos", place)
        except subprocess.CalledProcessError:
            return False
        _run("umount", place)
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
