"""What we distribute, built, and installed into environments of its own: once for all processes of pytest-xdist."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.once import make_once

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "arqonce"
PAYLOADS = ROOT / "jobs"

Once = Callable[[str, Callable[[Path], object]], Path]


def build(source: Path, target: Path, *options: str) -> None:
    """Build with the locked tools and without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def pip(*arguments: str | Path, python: Path = Path(sys.executable)) -> None:
    """Run pip for an environment, and fail with what it says."""
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def install_locked(requirements: str, *options: str | Path, python: Path = Path(sys.executable)) -> None:
    """Install exactly what one of our locks says: by uv, or by pip where uv cannot reach what pip can."""
    locked = ROOT / "requirements" / requirements
    wanted = ["--require-hashes", "--only-binary", ":all:", *options, "-r", locked]
    quick = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--python", python, *wanted]
    if subprocess.run(quick, capture_output=True, check=False).returncode != 0:
        pip("install", *wanted, python=python)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return what makes a folder, unless another process of this run has made it."""
    return partial(make_once, tmp_path_factory)


@pytest.fixture(autouse=True)
def _starts_processes(starts_processes: None) -> None:
    """Say that builds and installations are processes."""


def _build_both(folder: Path) -> None:
    for project in (LIBRARY, PAYLOADS):
        build(project, folder)


@pytest.fixture(scope="session")
def built(once: Once) -> Path:
    """Build wheel and sdist of the library, and of the payloads."""
    return once("built", _build_both)


@pytest.fixture(scope="session")
def library(built: Path) -> Path:
    """Return the library's wheel."""
    (found,) = built.glob("arqonce-*.whl")
    return found


@pytest.fixture(scope="session")
def payloads(built: Path) -> Path:
    """Return the wheel of the payloads."""
    (found,) = built.glob("users_jobs-*.whl")
    return found


def _install(folder: Path, requirements: str, *wheels: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install_locked(requirements, python=python_in(folder))
    pip("install", "--no-deps", "--no-index", *wheels, python=python_in(folder))


def python_in(environment: Path) -> Path:
    """Return the Python of an environment."""
    return environment / "bin" / "python"


@pytest.fixture(scope="session")
def python(once: Once, library: Path, payloads: Path) -> Path:
    """Install what a producer installs, with a driver of its own, and return its Python."""
    return python_in(once("producer", lambda folder: _install(folder, "producer.txt", library, payloads)))


@pytest.fixture(scope="session")
def python_of_tests(once: Once, library: Path, payloads: Path) -> Path:
    """Do the same with pytest, and with what else the tests of a service need."""
    return python_in(once("producer-tests", lambda folder: _install(folder, "producer-tests.txt", library, payloads)))


@pytest.fixture(scope="session")
def python_of_workers(once: Once, library: Path) -> Path:
    """Install what a project with workers installs: the library with its extra, and nothing of users-worker."""
    return python_in(once("workers", lambda folder: _install(folder, "runtime.txt", library)))


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Make a project that has packages of its own by the names of ours."""
    for name in ("jobs", "db", "worker", "web"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('OWNER = "the service"\n')
    return tmp_path
