"""``enqueued`` of arqonce's plugin: in a service that has no worker, and in one beside users-worker."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.installed.conftest import PAYLOADS, ROOT, Once, install_locked, pip

SAMPLE = Path(__file__).parent / "sample"

SETTINGS = "[pytest]\nfilterwarnings = error\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"

REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sqlalchemy", "alembic", "arq", "asyncpg", "psycopg", "pydantic_settings"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture
def project(service: Path) -> Path:
    """Return the service with the settings of its tests."""
    (service / "pytest.ini").write_text(SETTINGS)
    return service


def _test(project: Path, *paths: Path, python: Path = Path(sys.executable)) -> str:
    """Run the tests of a project and return what is said."""
    done = subprocess.run(
        [str(python), "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:valkey", "-rA"],
        cwd=project, env={"PYTHONPATH": ":".join(map(str, (project, *paths))), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def _write_checks(project: Path) -> str:
    shutil.copy(SAMPLE / "service.py", project)
    shutil.copy(SAMPLE / "checks.py", project / "test_service.py")
    return "8 passed"  # one is done twice


def _examples(file: Path) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (block,) = [str(block) for block in blocks if "arqonce.testing" in block and "users_jobs" in block]
    return block


def test_a_service_is_tested_without_a_worker(project: Path, python_of_tests: Path) -> None:
    """No server and no asyncpg is there, and packages named ``jobs`` and ``db`` are the service's own."""
    passed = _write_checks(project)

    told = _test(project, python=python_of_tests)

    assert passed in told, told
    assert "failed" not in told


@pytest.mark.parametrize(
    "file", [ROOT / "docs" / "testing.md", PAYLOADS / "README.md"], ids=lambda file: file.parent.name
)
def test_the_example_of_the_page_passes(file: Path, project: Path, python_of_tests: Path) -> None:
    """As it stands there."""
    (project / "test_readme.py").write_text(_examples(file))

    told = _test(project, python=python_of_tests)

    assert "2 passed" in told, told


def test_who_does_not_use_it_does_not_notice_it(project: Path, python_of_tests: Path) -> None:
    """Nothing is imported before a test has the fixture."""
    (project / "test_it.py").write_text(
        dedent("""
        import sys

        def test_it():
            assert "arqonce.testing.plugin" in sys.modules
            assert not {"users_jobs", "redis", "pydantic", "sqlalchemy"} & sys.modules.keys()
        """)
    )

    assert "1 passed" in _test(project, python=python_of_tests)


def test_it_needs_nothing_that_comes_with_workers(project: Path, python_of_tests: Path) -> None:
    """``enqueued`` works where SQLAlchemy, a driver and pydantic-settings cannot be imported."""
    (project / "sitecustomize.py").write_text(REFUSE)
    (project / "test_it.py").write_text(
        dedent("""
        import pytest
        from arqonce import SyncJobClient
        from users_jobs import CreateUser

        def test_it(enqueued):
            with SyncJobClient("redis://127.0.0.1:1") as client:
                client.enqueue(CreateUser(name="Jane"))
            enqueued.assert_enqueued(CreateUser, name="Jane")
            with pytest.raises(ModuleNotFoundError):
                import sqlalchemy
        """)
    )

    told = _test(project, python=python_of_tests)

    assert "1 passed" in told, told


def test_a_service_with_packages_of_our_names_is_tested_beside_the_library(project: Path, payloads: Path) -> None:
    """Where workers are installed, too: nothing of the library is called ``jobs``, ``db``, ``worker`` or ``web``."""
    pip("install", "--no-deps", "--no-index", "--target", project, payloads)
    passed = _write_checks(project)

    told = _test(project)

    assert passed in told, told
    assert "failed" not in told


def test_a_fixture_that_needs_a_worker_is_told_with_its_cure(project: Path, python_of_tests: Path) -> None:
    """In one line, when a test has it; other tests run."""
    (project / "test_it.py").write_text(
        dedent("""
        import pytest

        @pytest.mark.asyncio
        async def test_job(run_job): pass

        @pytest.mark.asyncio
        async def test_session(session): pass

        def test_worker(start_worker): pass

        def test_of_its_own(): pass
        """)
    )

    told = _test(project, python=python_of_tests)

    lines = [line for line in told.splitlines() if line.startswith("this fixture needs ")]
    assert len(lines) == 3, told
    assert all("pip install 'arqonce[worker,embedded]'" in line for line in lines)
    assert "1 passed" in told
    assert "another exception" not in told


@pytest.fixture(scope="session")
def old_asyncio(once: Once) -> Path:
    """Install a pytest-asyncio that is too old, and the pytest that it takes, to be laid over an environment."""
    name = "pytest-asyncio-0"
    return once(name, lambda folder: install_locked(f"{name}.txt", "--target", folder, "--no-deps"))


def test_an_old_pytest_asyncio_is_told_to_who_uses_a_fixture_and_to_nobody_else(
    project: Path, python_of_tests: Path, old_asyncio: Path
) -> None:
    """In one line that names the version needed; tests without our fixtures run, as if we were not there."""
    (project / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings =\n  error\n  ignore:'asyncio:DeprecationWarning\nasyncio_mode = strict\n"
    )
    (project / "test_it.py").write_text(
        dedent("""
        import pytest

        @pytest.mark.asyncio
        async def test_session(session): pass

        @pytest.mark.asyncio
        async def test_of_its_own(): pass

        def test_enqueued(enqueued): pass
        """)
    )

    told = _test(project, old_asyncio, python=python_of_tests)

    (line,) = [line for line in told.splitlines() if line.startswith("this fixture needs ")]
    assert "pytest-asyncio 1.1 or later, and 0.23" in line
    assert "pip install 'pytest-asyncio>=1.1'" in line
    assert "2 passed, 1 error" in told, told
