"""Tells which tests need what, by the fixtures that they use: the marks ``unit`` and ``quick``, and proof of them.

``unit`` needs no server and no process; ``quick`` is that, and tests on the servers that all share. All others start
processes or servers of their own: with a fixture that does so, or by themselves, and then they use the fixture
``starts_processes``. A test that starts one and does not say so fails.
"""

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

_STARTS = {"starts_processes", "jobs_programs", "crash_points", "pytester"}
"""Fixtures of tests that start processes."""

_SERVERS = {"jobs_postgres_url", "jobs_redis_url"}
"""Fixtures of the servers that all tests of a run share."""

_ASK_FOR_SERVERS = {*_SERVERS, "jobs_transaction"}
"""These, and what asks for them while it runs, which pytest cannot know before."""

_SHARED = {*_SERVERS, "with_least_rights"}
"""Fixtures that may start processes on behalf of all tests: servers, and what sets up their users once."""

_EVENTS = {
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "arqonce.testing.start",
}
"""Audit events of Python, and ours, of which each is a new process (Python manual, Audit events table)."""


_PROOFS = "tests/arqonce/testing/test_crash_points.py::test_a_crash_anywhere"

_LONG = (
    f"{_PROOFS}_leaves_one_effect_and_one_receipt[create_users]",
    f"{_PROOFS}_in_a_look_up",
    f"{_PROOFS}_in_a_refused_job",
    f"{_PROOFS}_in_a_promised_job",
    f"{_PROOFS}_in_an_invalid_job",
    f"{_PROOFS}_in_a_batch_leaves_one_effect_of_each_job[get_or_create_user]",
    f"{_PROOFS}_in_a_shared_transaction",
    "tests/arqonce/testing/test_crash_follow_ups.py::test_a_crash_anywhere",
    "tests/web/test_load.py::test_workers_that_die",
    "tests/arqonce/console/browser/test_live.py::test_two_operators",
    "tests/arqonce/console/browser/test_log_in.py::test_a_log_in_that_ends_elsewhere",
    "tests/arqonce/console/browser/test_acts.py::test_a_worker_is_drained",
    "tests/arqonce/console/browser/test_acts.py::test_a_schedule_is_paused",
    "tests/arqonce/console/browser/test_acts.py::test_an_act_that_is_not_confirmed",
    "tests/arqonce/console/browser/test_live.py::test_an_outage_of_redis",
    "tests/docs/test_contributing.py::test_the_recipe",
    "tests/docs/test_examples.py::test_all_blocks_type_check",
    "tests/docs/test_tutorial.py::test_the_tutorial_works",
    "tests/arqonce/testing/test_plugin.py::test_it_starts_servers_for_each_process_of_xdist",
    "tests/chaos/test_runs.py::test_all_faults_at_once_break_no_promise[more jobs]",
    "tests/installed/test_project.py::test_the_commands_work_there",
    "tests/installed/test_producer.py::test_results_are_typed_there",
    "tests/installed/test_producer.py::test_every_version_of_redis_py_that_we_take_works[redis-6]",
    "tests/installed/test_producer.py::test_every_version_of_redis_py_that_we_take_works[redis-7]",
    "tests/deploy/test_alerts.py::test_each_rule_fires",
    "tests/chaos/test_runs.py::test_a_mutant",
    "tests/chaos/test_runs.py::test_no_attempt_counts",
    "tests/chaos/test_runs.py::test_the_relay_finds_out",
    "tests/arqonce/client/test_typing.py",
    "tests/arqonce/console/browser/test_hostile.py",
    "tests/arqonce/console/browser/test_pictures.py::test_every_page",
    "tests/arqonce/console/browser/test_pictures.py::test_the_picture_of_the_readme_can",
    "tests/arqonce/commands/test_new_job.py::test_what_it_writes",
    "tests/examples/test_shop.py::test_it_type_checks",
    "tests/examples/test_shop.py::test_its_longest_proof_passes",
    "tests/web/test_openapi.py::test_the_service_does_what_it_describes",
)
"""Beginnings of the ids of tests that take half a minute each and rarely find what no other test finds.

Of each kind, one is left to be run each time: the other crash points, for instance, are those of further jobs.
"""


class _Watch:
    """What test runs that must start no process, if one does."""

    test: pytest.Item | None = None


@pytest.fixture(scope="session")
def starts_processes() -> None:
    """Say that a test starts processes, or servers of its own, without another fixture that does so."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks, and look at each start of a process from now on: an audit hook stays."""
    config.addinivalue_line("markers", "unit: needs no server and starts no process")
    config.addinivalue_line("markers", "long: left out of make test; make long runs them")
    config.addinivalue_line("markers", "quick: starts no process and needs at most the servers that all share")
    sys.addaudithook(_look)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use, directly or through others. Before ``-m`` selects."""
    for item in items:
        if item.nodeid.startswith(_LONG):
            item.add_marker("long")
        used = set(getattr(item, "fixturenames", ()))
        if not used & _STARTS:
            item.add_marker("quick")
            if not used & _ASK_FOR_SERVERS:
                item.add_marker("unit")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Let no fixture start a process for a test that does not say so."""
    with _watched(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test start a process without having said so."""
    with _watched(item):
        return (yield)


@contextmanager
def _watched(item: pytest.Item) -> Iterator[None]:
    _Watch.test = item if item.get_closest_marker("quick") else None
    try:
        yield
    finally:
        _Watch.test = None


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Let the shared servers start, whatever test happens to be the first to use them."""
    watched = _Watch.test
    if watched is not None and watched.get_closest_marker("unit") and fixturedef.argname in _SERVERS:
        pytest.fail(f"{watched.nodeid} needs a server, and no fixture of it says so before: see {__name__}")
    if fixturedef.argname in _SHARED:
        _Watch.test = None
    try:
        return (yield)
    finally:
        _Watch.test = watched


def _look(event: str, arguments: tuple[object, ...]) -> None:
    if event in _EVENTS and _Watch.test is not None:
        pytest.fail(
            f"{_Watch.test.nodeid} starts a process ({event}: {arguments[:2]}): it is no quick test. "
            'Mark it: @pytest.mark.usefixtures("starts_processes")'
        )
