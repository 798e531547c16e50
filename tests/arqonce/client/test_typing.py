"""The types of clients, jobs and fixtures, as mypy and pyright see them in code of others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.type_cache import CACHE

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = Path(__file__).parents[3]
PROGRAMS = {
    "producer": Path(__file__).with_name("typed_producer.py"),
    "developer": Path(__file__).with_name("typed_developer.py"),
}


_PYRIGHT = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": True,
    "reportUnnecessaryTypeIgnoreComment": "error",
    "reportUnknownMemberType": False,  # what follows from a mistake that is tested
    "extraPaths": [str(ROOT)],
}


def _check(checker: str, directory: Path, code: str) -> "subprocess.CompletedProcess[str]":
    (directory / "program.py").write_text(code)
    (directory / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT))
    command = {
        "mypy": ["mypy", "--strict", "--cache-dir", str(CACHE), str(directory / "program.py")],
        "pyright": ["basedpyright", "--level", "error", "--pythonpath", sys.executable, "--project", str(directory)],
    }
    return subprocess.run(
        [sys.executable, "-m", *command[checker]],
        cwd=ROOT, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_type_checks(checker: str, program: str, tmp_path: Path) -> None:
    """Each result has the type of its payload, and each mistake is found."""
    done = _check(checker, tmp_path, PROGRAMS[program].read_text())

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_wrong_type_is_found(checker: str, tmp_path: Path) -> None:
    """A check that passes whatever the types are would prove nothing."""
    done = _check(
        checker, tmp_path, PROGRAMS["producer"].read_text().replace("JobHandle[UserView])", "JobHandle[FoundUsers])")
    )

    assert done.returncode == 1
    assert "JobHandle[FoundUsers]" in done.stdout
