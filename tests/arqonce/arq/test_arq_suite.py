"""The tests that arq publishes, run on our worker class: what arq documents of functions holds here, too."""

import asyncio
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.arqonce.arq.suite.logs import without_log_assertions

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = Path(__file__).parents[3]
SUITE = Path(__file__).parent / "suite"

ALLOWED = {
    "tests/test_worker.py::test_exc_extra": "takes a record of arq's log, which ours does not write",
}
"""The tests that may fail, each with its reason."""

LEAST = 170
"""How many pass: a suite that was not found would pass otherwise."""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Fetch arq's source distribution, and take assertions on log lines out of its tests."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--no-binary", ":all:", "--require-hashes", "-r", ROOT / "requirements/arq-suite.txt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (archive,) = tmp_path.glob("arq-*.tar.gz")
    with tarfile.open(archive) as files:
        members = [member for member in files.getmembers() if "/tests/" in member.name]
        files.extractall(tmp_path, members, filter="data")
    (tests,) = tmp_path.glob("arq-*/tests")
    for file in tests.glob("test_*.py"):
        file.write_text(without_log_assertions(file.read_text()))
    return tests.parent


@pytest.mark.timeout(240)
async def test_what_arq_publishes_passes_on_our_class(suite: Path, redis: Redis, valkey_url: str) -> None:
    """All but what is allowed, by name."""
    assert redis is not None  # the queue is empty
    environment = {"SUITE_REDIS": valkey_url, "PYTHONPATH": os.pathsep.join([str(SUITE), str(ROOT)])}

    failed, passed, told = await asyncio.to_thread(_run, suite, environment, "tests")
    if late := sorted(failed - ALLOWED.keys()):  # theirs expect things within 10 ms: once more, alone
        failed, again, told = await asyncio.to_thread(_run, suite, environment, *late)
        passed += again

    assert failed <= ALLOWED.keys(), told
    assert passed >= LEAST


def _run(suite: Path, environment: dict[str, str], *tests: str) -> tuple[set[str], int, str]:
    """Return which tests have failed, how many have passed, and the end of what was printed."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "on_our_class", "-p", "no:cacheprovider", "-p", "no:schemathesis",
        "-p", "no:arqonce", "-c", os.devnull, f"--rootdir={suite}", "-o", "asyncio_mode=auto", "--timeout=30", *tests,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=suite, capture_output=True, text=True, check=False, timeout=110, env=os.environ | environment
    )
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
    passed = re.search(r"(\d+) passed", done.stdout)
    return failed, int(passed[1]) if passed else 0, done.stdout[-4000:]
