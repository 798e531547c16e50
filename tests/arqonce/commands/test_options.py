"""Values of options that cannot be meant, before any server is asked."""

import pytest
from typer.testing import CliRunner

from arqonce import Application
from arqonce.commands.app import build_app
from arqonce.connection.presence import LiveWorker
from arqonce.control.workers import matching


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("dead list --since 99999999d", "must be at most 36500d"),
        ("dead list --limit 999999999999999999999", "less than or equal to 1000000"),
        ("audit list --since 99999999d", "must be at most 36500d"),
        ("audit list --limit 999999999999999999999", "less than or equal to 1000000"),
        ("queue pause q --reason x --for 99999999d", "must be at most 36500d"),
        ("queue pause q --reason=", "is empty: say why, for others to read"),
        ("schedules pause x --until 99999999d", "must be at most 36500d, or a time: 2026-06-01T12:00+02:00"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_option(typed: str, problem: str) -> None:
    """It was an overflow, or an error of PostgreSQL."""
    called, *_ = arguments = typed.split()

    refused = CliRunner(env={"COLUMNS": "200", "DATABASE_URL": "postgresql://h/d"}).invoke(
        build_app(Application(name="shop"), called), arguments
    )

    assert (refused.exit_code, problem in refused.output) == (2, True)


def test_no_name_matches_no_worker() -> None:
    """A script's variable that is not set would drain the only one."""
    worker = LiveWorker(id="1cbc241a", host="vm", pid=7, queues=("q",))

    assert [matching(name, [worker]) for name in ("", "1c", "vm:7")] == [[], [worker], [worker]]
