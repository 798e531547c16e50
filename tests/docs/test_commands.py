"""The commands of every page do what the text says: those of a page run in their order, in one environment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, commands_in
from tests.docs.test_blocks import OWN_TESTS
from tests.warm import run

BLOCKS = blocks_of("console", besides=frozenset(OWN_TESTS))
MAKE = {tuple(command): command for page in PAGES for command in commands_in(page, "make")}
RUN = [page for page in PAGES if page not in OWN_TESTS and commands_in(page, "users-worker")]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_program_is_one_that_is_run(block: Block) -> None:
    """Here; a page with other programs has a test of its own."""
    assert {command[0] for command in block.commands} <= {"make", "users-worker"}


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("command", MAKE.values(), ids=" ".join)
def test_every_make_target_exists(command: list[str]) -> None:
    """What they do is what this run of tests, and CI, do."""
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("starts_processes")
def test_make_alone_lists_the_targets() -> None:
    """One line each, in groups, of which the first is what a newcomer wants."""
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)

    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")]
    assert {"demo", "dev", "docs", "test", "check", "fix", "migrate", "run"} <= set(listed)
    assert listed[:2] == ["help", "demo"]
    assert len(listed) == len(re.findall(r"^[a-z-]+:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize(
    ("home", "is_made"), [(f"{ROOT.resolve()}\n", False), ("", False), ("/another/checkout\n", True)]
)
def test_an_environment_of_another_folder_is_made_anew(tmp_path: Path, home: str, is_made: bool) -> None:  # noqa: FBT001
    """That of a copied checkout would run the code of the first one, and that of a moved one nothing."""
    (tmp_path / "ready").write_text(home)

    done = subprocess.run(
        ["make", "-n", "setup", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ("--editable" in done.stdout) is is_made


@pytest.mark.usefixtures("starts_processes", "redis")
@pytest.mark.parametrize(("page", "number"), [("README.md", 3), ("docs/operations.md", 15)])
def test_the_commands_of_a_page_work_in_their_order(
    page: str, number: int, environment: dict[str, str], sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Each ends with 0."""
    assert sessions is not None  # it removes the users afterwards

    done = [
        run([sys.executable, "-m", "worker", *command[1:]], environment, cwd=ROOT)
        for command in commands_in(page, "users-worker")
    ]

    assert [(one.args, one.stderr) for one in done if one.returncode != 0] == []
    assert len(done) == number


def test_every_page_with_commands_is_run() -> None:
    """By the test above."""
    assert set(RUN) == {"README.md", "docs/operations.md"}
