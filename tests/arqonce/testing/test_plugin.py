"""The plugin in a project of its own: in every way of running asynchronous tests, on servers that it starts itself."""

import json
from textwrap import dedent

import pytest

from tests import warm
from tests.arqonce.testing.conftest import SAMPLE
from tests.docs.blocks import text_of

FIXTURE = """
import {module}
import pytest
from notes import Note, WriteNote, write_note


@{decorator}
async def note(session):
    return await write_note(session, WriteNote(words="given"))
"""

WAYS = {
    "asyncio, strict": ("asyncio_mode = strict", "pytest_asyncio.fixture", "pytest.mark.asyncio"),
    "asyncio, strict, one loop": (
        "asyncio_mode = strict",
        'pytest_asyncio.fixture(loop_scope="session")',
        'pytest.mark.asyncio(loop_scope="session")',
    ),
    "asyncio, auto": ("asyncio_mode = auto", "pytest.fixture", None),
    "asyncio, auto, one loop": (
        "asyncio_mode = auto\nasyncio_default_test_loop_scope = session\nasyncio_default_fixture_loop_scope = session",
        "pytest.fixture",
        None,
    ),
    "anyio": ("addopts = -p no:asyncio", "pytest.fixture", "pytest.mark.anyio"),
    "anyio beside asyncio": ("asyncio_mode = strict", "pytest.fixture", "pytest.mark.anyio"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_fixtures_work_in_every_way_of_running_tests(way: str, project_here: pytest.Pytester) -> None:
    """Test and fixtures share a loop, whoever runs it; warnings are errors."""
    settings, fixture, mark = WAYS[way]
    project_here.makeini(f"[pytest]\n{settings}\nfilterwarnings = error\n{_default_scope(settings)}")
    checks = (SAMPLE / "checks.py").read_text()
    tail = FIXTURE.format(module=fixture.split(".")[0], decorator=fixture)
    if mark:
        tail += f"\npytestmark = {mark}\n"
    if "anyio" in way:
        tail += '\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    project_here.makepyfile(test_it=checks + tail)

    done = warm.run_pytest(project_here)

    done.assert_outcomes(passed=checks.count("async def test_"))
    assert all(line in text_of("docs/testing.md") for line in settings.splitlines() if "-p" not in line)


def _default_scope(settings: str) -> str:
    """Set what pytest-asyncio wants to be set."""
    is_set = "asyncio_default_fixture_loop_scope" in settings or "no:asyncio" in settings
    return "" if is_set else "asyncio_default_fixture_loop_scope = function\n"


def _wrong(project: pytest.Pytester, settings: str, code: str) -> str:
    """Run tests that cannot pass, and return what is told."""
    project.makeini(f"[pytest]\n{settings}\n{_default_scope(settings)}")
    project.makepyfile(test_it="import pytest\nfrom sqlalchemy import text\n" + dedent(code))
    done = warm.run_pytest(project)
    assert "passed" not in done.parseoutcomes()
    return " ".join(done.stdout.str().split())


def test_what_runs_in_no_loop_names_the_cure(project_here: pytest.Pytester) -> None:
    """A test that is not async, and one that nobody awaits."""
    told = _wrong(
        project_here,
        "asyncio_mode = strict",
        """
        def test_sync(session): pass
        async def test_unmarked(run_job): pass
        """,
    )

    assert told.count("write async def, and mark it @pytest.mark.asyncio") == 2


def test_different_loops_name_the_cure(project_here: pytest.Pytester) -> None:
    """Of a fixture of the project's, and of its test."""
    told = _wrong(
        project_here,
        "asyncio_mode = strict",
        """
        import pytest_asyncio

        @pytest_asyncio.fixture(loop_scope="session")
        async def given(session):
            await session.execute(text("SELECT 1"))

        @pytest.mark.asyncio(loop_scope="function")
        async def test_in_another_loop(given): pass
        """,
    )

    assert "have different loop scopes. Give both the same" in told


def test_anyio_with_trio_names_the_cure(project_here: pytest.Pytester) -> None:
    """Asyncpg has no trio."""
    told = _wrong(
        project_here,
        "addopts = -p no:asyncio",
        """
        @pytest.fixture
        def anyio_backend(): return "trio", {}

        @pytest.mark.anyio
        async def test_on_trio(session): pass
        """,
    )

    assert 'a fixture anyio_backend that returns "asyncio"' in told


def test_two_who_run_the_same_test_name_the_cure(project_here: pytest.Pytester) -> None:
    """pytest-asyncio takes every test in its auto mode."""
    told = _wrong(
        project_here,
        "asyncio_mode = auto",
        """
        @pytest.fixture
        def anyio_backend(): return "asyncio"

        @pytest.mark.anyio
        async def test_on_both(session): pass
        """,
    )

    assert "set asyncio_mode = strict" in told


def test_a_commit_by_mistake_is_told(project_here: pytest.Pytester) -> None:
    """Where it stands; also if somebody catches it, and the rows are gone for the next test."""
    project_here.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    project_here.makepyfile(
        test_it="""
        from contextlib import suppress
        from notes import WriteNote, write_and_commit, write_note
        from sqlalchemy import text

        async def test_direct(session):
            await write_and_commit(session, WriteNote(words="x"))

        async def test_caught(session):
            with suppress(Exception):
                await write_and_commit(session, WriteNote(words="x"))

        async def test_savepoint(session):
            async with session.begin_nested():
                await write_note(session, WriteNote(words="x"))

        async def test_gone(session):
            assert await session.scalar(text("SELECT count(*) FROM notes")) == 0
        """
    )

    done = warm.run_pytest(project_here)

    done.assert_outcomes(passed=3, failed=1, errors=1)
    assert done.stdout.str().count("Handlers and queries never commit") >= 2
    done.stdout.fnmatch_lines(["notes.py:*: in write_and_commit", "*await session.commit()*"])


def test_a_job_that_fails_is_told_on_a_page(project_here: pytest.Pytester) -> None:
    """The handler's line, the database's words and the failure; no frame of a library, and no variable of theirs."""
    project_here.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    project_here.makepyfile(
        test_it="""
        from notes import WriteNote
        from sqlalchemy import text
        from arqonce import JobSpec, Registry

        async def fail(session, payload):
            await session.execute(text("SELECT * FROM nowhere"))

        async def test_failing(run_job):
            await run_job(WriteNote(words="x"), registry=Registry(JobSpec(WriteNote, fail)))
        """
    )

    told = warm.run_pytest(project_here).stdout.str()

    assert 'await session.execute(text("SELECT * FROM nowhere"))' in told
    assert 'relation "nowhere" does not exist' in told
    assert "DatabaseFailedError: database_failed" in told
    assert len(told.splitlines()) < 60


def test_a_wrong_result_is_told_in_its_words(project_here: pytest.Pytester) -> None:
    """No line of the library stands between the test and them; the log has them, too."""
    project_here.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    project_here.makepyfile(
        test_it="""
        from notes import WriteNote
        from arqonce import JobSpec, Registry

        async def answer(session, payload):
            return {"id": 1}

        async def test_answering(run_job):
            await run_job(WriteNote(words="x"), registry=Registry(JobSpec(WriteNote, answer)))
        """
    )

    told = warm.run_pytest(project_here).stdout.str()

    assert "error='WrongResultError (the handler of write_note returned dict, not Note: return the result type" in told
    assert "arqonce/execution/answers.py" not in told
    assert len(told.splitlines()) < 40


def test_it_starts_servers_for_each_process_of_xdist(project: pytest.Pytester) -> None:
    """A real worker has a database of the test's own, which the next does not see; a module can have one, too."""
    project.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\narqonce_module = worker\n"
    )
    project.makepyfile(
        test_it="""
        import os
        from datetime import timedelta
        import asyncpg
        import pytest
        from jobs import CreateUser
        from arqonce import JobClient

        @pytest.mark.parametrize("number", range(2))
        async def test_end_to_end(number, start_worker, jobs_redis_url, own_database):
            worker = start_worker()
            async with JobClient(jobs_redis_url) as client:
                handle = await client.enqueue(CreateUser(name="Jane"), key="the-same")
                user = await handle.result(timeout=timedelta(seconds=20))
            connection = await asyncpg.connect(own_database.url.get_secret_value())
            names = await connection.fetch("SELECT name FROM users")
            await connection.close()
            assert ([row["name"] for row in names], user.id, worker.stop()) == (["Jane"], 1, 0)

        MADE = []

        @pytest.fixture(scope="module")
        def jobs_database(jobs_databases):
            with jobs_databases.copy() as settings:
                MADE.append(settings)
                yield settings

        @pytest.mark.parametrize("number", range(2))
        async def test_rolled_back(number, run_job):
            assert os.environ["PYTEST_XDIST_WORKER"] in MADE[0].location
            assert (await run_job(CreateUser(name="Jane"))).name == "Jane"
        """
    )

    done = warm.run_pytest(project, "--numprocesses=2", "--dist=load")

    done.assert_outcomes(passed=4)


def test_crash_points_are_proven_on_servers_of_its_own(project: pytest.Pytester) -> None:
    """A look-up has few."""
    project.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    project.makepyfile(
        test_it="""
        from jobs import FindUser

        async def test_proven(crash_points):
            assert (await crash_points.prove(FindUser(name="Jane"))).points
        """
    )

    done = warm.run_pytest(project)

    done.assert_outcomes(passed=1)


OURS = ("jobs", "db", "worker", "embedded", "sqlalchemy", "asyncpg", "redis", "pydantic", "arq", "alembic")


def test_who_does_not_use_it_does_not_notice_it(pytester: pytest.Pytester) -> None:
    """Nothing is imported, and fixtures of the same names are the project's."""
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = -p no:asyncio\n")
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def session(): return "theirs"
        """
    )
    pytester.makepyfile(
        f"""
        import sys

        def test_it(session):
            assert session == "theirs"
            assert "arqonce.testing.plugin" in sys.modules
            assert sys.modules.keys() & set({json.dumps(OURS)}) == set()
        """
    )

    done = pytester.runpytest_subprocess()

    done.assert_outcomes(passed=1)
