"""How commands end after errors that somebody can mend."""

import errno
import os

import pytest

from arqonce.process.exit_codes import ExitCode, explained
from arqonce.usage import UsageError


def test_output_that_cannot_be_written_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full disk, for instance, of whoever writes the output into a file. What is left of it is dropped."""
    replaced = []
    monkeypatch.setattr(os, "dup2", lambda _found, number: replaced.append(number))

    with pytest.raises(SystemExit) as ended, explained("jobs"):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert (ended.value.code, replaced) == (1, [1])
    assert capfd.readouterr().err == "jobs: the output cannot be written: No space left on device\n"


def test_a_file_that_cannot_be_written_is_another_error() -> None:
    """It has a name, and whoever writes it says what to do."""
    with pytest.raises(OSError, match="full"), explained("jobs"):
        raise OSError(errno.ENOSPC, "full", "a.csv")


def test_an_error_controls_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """It repeats what somebody has typed, or what a file is called."""
    with pytest.raises(SystemExit), explained("jobs"):
        raise UsageError("there is no \x1b[2J\x9b, and no \udcfc:\n\tü")

    assert capfd.readouterr().err == "jobs: there is no \\x1b[2J\\x9b, and no \\udcfc:\n\tü\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("can't start new thread"), "raise the limit of processes and threads (ulimit -u, TasksMax"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "the current folder was removed"),
    ],
)
def test_what_a_process_lacks_is_told_in_a_line(error: Exception, told: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Code 1: a supervisor starts it again, and ends no others for it. Other errors of these classes are defects."""
    with pytest.raises(SystemExit) as ended, explained("jobs"):
        raise error
    other = type(error)(errno.ENOENT, "other", "a.csv")
    with pytest.raises(type(error), match="other"), explained("jobs"):
        raise other

    assert ended.value.code == ExitCode.FAILED
    assert told in capfd.readouterr().err
