"""How far an import is, on a terminal and elsewhere."""

from datetime import timedelta
from pathlib import Path

import pytest

from worker.commands import import_progress
from worker.commands.import_progress import show_progress, show_reading


def _advance_thrice(*, quiet: bool = False) -> None:
    with show_progress("import", 3000, quiet=quiet) as advance:
        for _ in range(3):
            advance(1000)


def test_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, for a log."""
    monkeypatch.setattr(import_progress, "_PAUSE", timedelta(0))

    _advance_thrice()

    output, lines = capsys.readouterr()
    assert output == ""
    assert lines.splitlines() == [f"import: {done},000 of 3,000 rows" for done in (1, 2, 3)]


def test_no_line_before_the_pause_is_over_and_none_for_scripts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short import says nothing."""
    _advance_thrice()
    monkeypatch.setattr(import_progress, "_PAUSE", timedelta(0))
    _advance_thrice(quiet=True)

    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_one_line_that_is_rewritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the rows that are done, and all."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")

    _advance_thrice()

    error = capsys.readouterr().err
    assert "3000/3000" in error
    assert "\r\x1b[2K" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("terminal", "quiet", "is_said"), [("1", False, True), ("1", True, False), ("0", False, False)]
)
def test_the_first_reading_is_said_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: str, *, quiet: bool, is_said: bool
) -> None:
    """Of a large file it takes seconds, in which nothing else is shown."""
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with show_reading(Path("a/people.csv"), quiet=quiet):
        pass

    output, error = capsys.readouterr()
    assert ("reading people.csv" in error, output) == (is_said, "")
