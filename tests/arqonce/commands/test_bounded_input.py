"""What operators give to commands is bounded, and told as theirs."""

import pytest
import typer
from typer.testing import CliRunner

from arqonce import DatabaseSettings
from arqonce.commands.audit import build_audit_app
from arqonce.commands.dead import build_dead_app
from arqonce.commands.queue import build_queue_app
from arqonce.commands.schedules import build_schedules_app
from arqonce.commands.workers import build_workers_app
from arqonce.process.startup_errors import StartupError
from arqonce.usage import UsageError

COMMANDS = typer.Typer()
for name, app in {
    "queue": build_queue_app(), "dead": build_dead_app(), "audit": build_audit_app(),
    "schedules": build_schedules_app(), "workers": build_workers_app(),
}.items():  # fmt: skip
    COMMANDS.add_typer(app, name=name)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["queue", "pause", "--reason", "x" * 1001], "has more than 1,000 characters"),
        (["queue", "pause", "--reason", "\x1b[31m"], "has a control character"),
        (["queue", "pause", "--reason", "x", "--by", "a\udcff"], "is not UTF-8"),
        (["queue", "resume", "--why", "x" * 1001], "has more than 1,000 characters"),
        (["dead", "retry", "a\nb"], "has a line break or another"),
        (["dead", "discard", "a", ""], "is empty, or has"),
        (["dead", "show", "a\udcff"], "is empty, or has"),
        (["schedules", "pause", "a\nb"], "has a line break"),
        (["schedules", "pause", "nightly", "--until", "2025-06-01T12:00Z"], "is over: nothing would be paused"),
        (["schedules", "pause", "nightly", "--until", "0s"], "is over: nothing would be paused"),
        (["schedules", "run-now", "\x1b[2J"], "has a line break"),
        (["workers", "drain", "a\nb"], "has a line break"),
    ],
)
def test_a_value_out_of_bounds_is_refused_before_anything_is_asked(arguments: list[str], text: str) -> None:
    """As the console does: a reason is read in terminals, and no date has the year 0 or 10,000."""
    done = CliRunner().invoke(COMMANDS, arguments)

    assert (done.exit_code, text in done.output) == (2, True), done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "list", "--job", "a\udcff"],
        ["dead", "list", "--reason", "a\udcff"],
    ],
)
def test_what_postgresql_cannot_say_is_no_fault_of_postgresql(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """It was told as "is not ready"."""
    monkeypatch.setenv("DATABASE_URL", database.url.get_secret_value())

    done = CliRunner().invoke(COMMANDS, arguments)

    assert isinstance(done.exception, UsageError)
    assert not isinstance(done.exception, StartupError)
    assert "no such value as one that was given" in str(done.exception)
