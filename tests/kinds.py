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
    f"{_PROOFS}_leaves_one_effect_and_one_receipt",
    f"{_PROOFS}_in_a_look_up",
    f"{_PROOFS}_in_a_refused_job",
    f"{_PROOFS}_in_a_promised_job",
    f"{_PROOFS}_in_an_invalid_job",
    f"{_PROOFS}_in_a_batch_leaves_one_effect_of_each_job[get_or_create_user]",
    f"{_PROOFS}_in_a_shared_transaction",
    "tests/arqonce/testing/test_crash_follow_ups.py::test_a_crash_anywhere",
    "tests/arqonce/testing/test_crash_phases.py::test_a_crash_anywhere",
    "tests/web/test_load.py::test_workers_that_die",
    "tests/arqonce/console/browser/test_live.py::test_two_operators",
    "tests/arqonce/console/browser/test_pages.py::test_no_page",
    "tests/arqonce/console/browser/test_pages.py::test_every_page",
    "tests/arqonce/console/browser/test_acts.py::test_a_queue_is_paused",
    "tests/arqonce/console/browser/test_acts.py::test_a_job_is_found",
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
    "tests/chaos/test_runs.py::test_ctrl_c",
    "tests/chaos/test_runs.py::test_jobs_of_killed_workers",
    "tests/chaos/test_runs.py::test_no_attempt_counts",
    "tests/chaos/test_runs.py::test_the_relay_finds_out",
    "tests/arqonce/client/test_storm.py",
    "tests/arqonce/client/test_typing.py",
    "tests/arqonce/arq/test_arq_suite.py",
    "tests/arqonce/console/browser/test_hostile.py",
    "tests/arqonce/console/browser/test_pictures.py::test_every_page",
    "tests/arqonce/console/browser/test_pictures.py::test_the_picture_of_the_readme_can",
    "tests/arqonce/commands/test_new_job.py::test_what_it_writes",
    "tests/arqonce/commands/test_new_job.py::test_its_test_passes_as_it_is[no table]",
    "tests/examples/test_shop.py::test_it_type_checks",
    "tests/examples/test_shop.py::test_its_longest_proof_passes",
    "tests/examples/test_shop.py::test_its_own_tests_pass",
    "tests/web/test_fuzz.py",
    "tests/web/test_openapi.py::test_the_service_does_what_it_describes",
    "tests/arqonce/testing/test_crash_points.py::test_the_prover_finds[handler commits]",
    "tests/arqonce/testing/test_crash_points.py::test_the_prover_finds[effect outside]",
    "tests/arqonce/testing/test_plugin.py::test_crash_points_are_proven_on_servers_of_its_own",
    "tests/arqonce/arq/test_sentry.py::test_sentry_gets_what_it_gets_of_arq[stream]",
    "tests/arqonce/arq/test_shapes.py::test_a_job_whose_worker_ends_without_handling_signals_is_tried_again[15-arqonce]",
    "tests/arqonce/client/test_waiting.py::test_two_thousand_who_wait",
    "tests/arqonce/commands/test_loading.py::test_a_command_loads_what_it_needs_alone",
    "tests/arqonce/console/test_outages.py::test_redis_is_away[silent]",
    "tests/arqonce/console/test_outages.py::test_postgresql_is_away[silent]",
    "tests/arqonce/embedded/test_postgres.py::test_interrupted_initdb",
    "tests/arqonce/embedded/test_postgres.py::test_two_at_once",
    "tests/arqonce/embedded/test_standby.py::test_promoting_twice",
    "tests/arqonce/embedded/test_standby.py::test_what_a_synchronous_primary",
    "tests/arqonce/engine/test_limits.py::test_whatever_happens_no_limit_is_exceeded_and_all_jobs_end[0]",
    "tests/arqonce/engine/test_limits.py::test_whatever_happens_no_limit_is_exceeded_and_all_jobs_end[1]",
    "tests/arqonce/execution/test_batch.py::test_zombies_of_one_batch_give_the_same_answers[False]",
    "tests/arqonce/execution/test_batch_handlers.py::test_many_are_answered_as_one_after_the_other[find_user]",
    "tests/arqonce/execution/test_batch_handlers.py::test_many_are_answered_as_one_after_the_other[get_or_create_user]",
    "tests/arqonce/execution/test_receipts.py::test_owners_at_once_take_effect_once[get_or_create_user]",
    "tests/arqonce/process/test_supervisor.py::test_a_process_that_does_not_end_is_killed[started]",
    "tests/arqonce/process/test_supervisor.py::test_what_dies_at_once_is_restarted_more_and_more_rarely[false]",
    "tests/bench/test_contenders.py::test_a_run_of_ours",
    "tests/chaos/test_runs.py::test_faults_that_name_none_are_refused_with_their_names[,",
    "tests/docs/test_other_languages.py::test_a_failure_is_told_by_its_type[js]",
    "tests/docs/test_other_languages.py::test_a_key_is_for_one_request[js]",
    "tests/docs/test_other_languages.py::test_what_the_schema_refuses_is_not_sent[js]",
    "tests/docs/test_other_languages.py::test_without_redis_the_program_ends[js]",
    "tests/docs/test_programs.py::test_the_programs_of_a_page_get_their_results[arqonce/README.md]",
    "tests/docs/test_programs.py::test_the_programs_of_a_page_get_their_results[docs/",
    "tests/security/test_leaks.py::test_a_leak_fails_the_run[file-options5]",
    "tests/security/test_leaks.py::test_a_leak_fails_the_run[print-options4]",
    "tests/worker/test_commands.py::test_a_second_dev",
    "tests/worker/test_commands.py::test_dev_ends_when_a_server_has_ended",
    "tests/worker/test_commands.py::test_dev_runs_until_it_is_stopped[1",
)
"""Beginnings of the ids of tests that take long and rarely find what no other test finds.

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
