"""Looks through everything that a run of tests has printed and logged for people's data and passwords.

Tests that use these markers need no assertion on logs: the run fails if one of them shows up anywhere.
"""

from pathlib import Path

import pytest

NAME = "Zenobia Quillfeather"
EMAIL = "zenobia@quillfeather.example"
PASSWORD = "never-to-be-seen-4f1c9a"  # noqa: S105 - of servers that live for one run
MARKERS = ("quillfeather", "zenobia", PASSWORD)
"""In lower case: what is compared is, too."""

_printed: list[str] = []
"""Leaks in what the tests of this run have printed."""


def find_leaks(name: str, text: str) -> list[str]:
    """Say where in the text a marker stands."""
    return [
        f"{name}, line {number}: {marker}"
        for number, line in enumerate(text.lower().splitlines(), start=1)
        for marker in MARKERS
        if marker in line
    ]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Look at what a test printed and logged. Under xdist all reports come to the one process that began the run."""
    for title, content in report.sections:
        _printed.extend(find_leaks(f"{report.nodeid}, {title}", content))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> object:
    """Fail the run if people's data or a password are in any log."""
    if hasattr(session.config, "workerinput"):  # of xdist: the process that began the run does it for all
        return (yield)
    directory = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined] # it has no public name
    if leaks := [*dict.fromkeys(_printed), *_leaks_in_files(directory)]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\n".join(["", "people's data or passwords in logs:", *leaks[:50]]))  # noqa: T201 - the run's last word
    return (yield)


def _leaks_in_files(directory: Path) -> list[str]:
    """Look at the logs of all processes that the tests have started, servers included."""
    return [
        leak
        for file in sorted(directory.rglob("*.log"))
        for leak in find_leaks(str(file.relative_to(directory)), file.read_text(errors="replace"))
    ]
