"""The search through all logs finds what it is there for: an inner run of pytest leaks, and fails."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests import warm

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = Path(__file__).parents[2]

CONFTEST = "from tests.leaks import pytest_runtest_logreport, pytest_sessionfinish\n"
LEAKS = {
    "print": "from tests.leaks import NAME\ndef test_it():\n    print(NAME)\n",
    "log": "import logging\nfrom tests.leaks import EMAIL\ndef test_it():\n    logging.warning('to %s', EMAIL)\n",
    "file": "from tests.leaks import PASSWORD\ndef test_it(tmp_path):\n    (tmp_path / 'x.log').write_text(PASSWORD)\n",
    "process": "import subprocess\nfrom tests.leaks import NAME\ndef test_it():\n"
    "    subprocess.run(['sh', '-c', f'echo {NAME} >&2'])\n",
}
HARMLESS = "def test_it(tmp_path):\n    print('Jane')\n    (tmp_path / 'x.log').write_text('Jane')\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a folder that the outer run does not search."""
    with TemporaryDirectory() as name:
        yield Path(name)


def _run(directory: Path, test: str, *options: str) -> "subprocess.CompletedProcess[str]":
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_inner.py").write_text(test)
    return warm.run_elsewhere(
        "pytest", "-q", f"--rootdir={directory}", f"--basetemp={directory / 'tmp'}", "-c", "/dev/null",
        *options, str(directory / "test_inner.py"), env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=directory,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "options"), [(way, ()) for way in LEAKS] + [(way, ("--numprocesses=2",)) for way in ("print", "file")]
)
def test_a_leak_fails_the_run(directory: Path, way: str, options: tuple[str, ...]) -> None:
    """Although the test itself passes; in one process and in several."""
    done = _run(directory, LEAKS[way], *options)

    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "people's data or passwords in logs:" in done.stdout


def test_no_leak_no_failure(directory: Path) -> None:
    """Names that are no markers may stand anywhere."""
    done = _run(directory, HARMLESS)

    assert (done.returncode, "people's data" in done.stdout) == (0, False), done.stdout
