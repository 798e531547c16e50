"""The producer's side, built, and installed into environments of its own beside a service."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.once import make_once

ROOT = Path(__file__).parent.parent.parent
PRODUCER = ROOT / "producer"


def build(source: Path, target: Path, *options: str) -> None:
    """Build with the locked tools and without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def pip(*arguments: str | Path, python: Path = Path(sys.executable)) -> None:
    """Run pip for an environment, and fail with what it says."""
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist."""
    return make_once(tmp_path_factory, "built", lambda folder: build(PRODUCER, folder))


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """Return the wheel."""
    (found,) = built.glob("*.whl")
    return found


def _install(wheel: Path, folder: Path, requirements: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    locked = ROOT / "requirements" / requirements
    pip("install", "--require-hashes", "--only-binary", ":all:", "-r", locked, python=python)
    pip("install", "--no-deps", "--no-index", wheel, python=python)


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment of its own, with the locked dependencies, and return its Python."""
    made = make_once(tmp_path_factory, "environment", lambda folder: _install(wheel, folder, "producer.txt"))
    return made / "bin" / "python"


@pytest.fixture(scope="session")
def python_of_tests(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do the same with pytest, and with what else the tests of a service need."""
    made = make_once(
        tmp_path_factory, "environment-of-tests", lambda folder: _install(wheel, folder, "producer-tests.txt")
    )
    return made / "bin" / "python"


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Make a project that has packages of its own by the names ``jobs`` and ``db``."""
    for name in ("jobs", "db"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('OWNER = "the service"\n')
    return tmp_path
