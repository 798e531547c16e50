"""``enqueued`` of users-jobs: in a service that has nothing else of ours, and beside users-worker."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.producer.conftest import PRODUCER, ROOT, pip

pytestmark = pytest.mark.usefixtures("starts_processes")

SAMPLE = Path(__file__).parent / "sample"

SETTINGS = "[pytest]\nfilterwarnings = error\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"

BOTH = """
import pytest
import jobs
import users_jobs

@pytest.mark.asyncio
async def test_both(enqueued, run_job, session):
    jane = users_jobs.GetOrCreateUser(name="Jane", email="jane@example.org")
    async with jobs.open_client("redis://127.0.0.1:1") as ours, users_jobs.open_client("redis://127.0.0.1:1") as theirs:
        enqueued.answer(users_jobs.CreateUser, users_jobs.EmailTakenError("taken"), name="Jim")
        handles = [await theirs.enqueue(users_jobs.CreateUser(name=name), key=name) for name in ("Joe", "Jim")]
        again = await ours.enqueue(jobs.CreateUser(name="Joe"), key="Joe")
        await users_jobs.enqueue_in(session, jane, key="Jane")
        await enqueued.drain()

        assert (await handles[0].result()).name == (await again.result()).name == "Joe"
        with pytest.raises(users_jobs.EmailTakenError):
            await handles[1].result()
        assert await handles[1].status() is users_jobs.JobStatus.COMPLETE
    assert again.outcome is jobs.Enqueued.DUPLICATE
    assert [job.job_id for job in enqueued.jobs] == ["Joe", "Jim", "Jane"]
    enqueued.assert_enqueued(jobs.CreateUser, name="Joe")
    enqueued.assert_enqueued(users_jobs.CreateUser, name="Joe")
"""

SERVER = """
import pytest

@pytest.fixture(scope="session")
def jobs_postgres_url():
    return "{url}?sslmode=disable"
"""


@pytest.fixture
def project(service: Path) -> Path:
    """Return the service with the settings of its tests."""
    (service / "pytest.ini").write_text(SETTINGS)
    return service


@pytest.fixture(scope="session")
def beside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install users-jobs where it is found beside this environment, which has users-worker."""
    folder = tmp_path_factory.mktemp("beside")
    pip("install", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


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
    (block,) = [str(block) for block in blocks if "users_jobs.testing" in block]
    return block


def test_a_service_is_tested_with_users_jobs_alone(project: Path, python_of_tests: Path) -> None:
    """No server, no worker and no asyncpg is there, and packages named ``jobs`` and ``db`` are the service's own."""
    passed = _write_checks(project)

    told = _test(project, python=python_of_tests)

    assert passed in told, told
    assert "failed" not in told


@pytest.mark.parametrize("file", [ROOT / "README.md", PRODUCER / "README.md"], ids=lambda file: file.parent.name)
def test_the_example_of_the_readme_passes(file: Path, project: Path, python_of_tests: Path) -> None:
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
            assert "pytest_users_jobs" in sys.modules
            assert not {"users_jobs", "redis", "pydantic", "sqlalchemy"} & sys.modules.keys()
        """)
    )

    assert "1 passed" in _test(project, python=python_of_tests)


def test_one_fixture_records_both_packages(tmp_path: Path, beside: Path, postgres_url: str) -> None:
    """Where users-worker is installed as well: one queue, and drain runs what is in it, whoever put it there."""
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text(SERVER.format(url=postgres_url))
    (tmp_path / "test_both.py").write_text(BOTH)

    told = _test(tmp_path, beside)

    assert "1 passed" in told, told


def test_a_service_with_a_package_jobs_is_tested_beside_users_worker(project: Path, beside: Path) -> None:
    """Its own package hides the one of users-worker; users-jobs has another name."""
    passed = _write_checks(project)

    told = _test(project, beside)

    assert passed in told, told
    assert "failed" not in told


def test_a_hidden_package_is_told_with_its_cure(project: Path) -> None:
    """When a fixture needs it, in one line; other tests run."""
    (project / "test_it.py").write_text(
        dedent("""
        import pytest

        def test_enqueued(enqueued): pass

        @pytest.mark.asyncio
        async def test_job(run_job): pass

        def test_of_its_own(): pass
        """)
    )

    told = _test(project)

    lines = [
        line for line in told.splitlines() if line.startswith("the name jobs is that of a package of this project")
    ]
    assert len(lines) == 2, told
    assert all(f"({project / 'jobs'})" in line and "install users-jobs" in line for line in lines)
    assert "1 passed" in told
    assert "another exception" not in told
