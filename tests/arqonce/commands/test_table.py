"""Tables on terminals of several widths, and in encodings that lack characters."""

import io
import sys

import pytest

from arqonce.commands.app import _escape_unwritable
from arqonce.commands.table import print_table

_ID = "499bcd42-5191-413f-b1e9-4de7f2c3193b"


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True

    @property
    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined, no-any-return] # a BytesIO


def _open(monkeypatch: pytest.MonkeyPatch, encoding: str, columns: int) -> _Terminal:
    terminal = _Terminal(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 200])
def test_an_id_can_be_copied(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """No id is folded, however narrow the terminal is and however long the prose."""
    terminal = _open(monkeypatch, "utf-8", columns)

    print_table(("job id", "died at", "explanation"), [(_ID, "2026-12-01T18:20:55+00:00", "it was so " * 30)] * 2)

    lines = terminal.written.splitlines()
    assert sum(_ID in line for line in lines) == 2
    assert (lines[0] == f"job id       {_ID}") == (columns < 100)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "J\xfcrgen \u65e5\U0001f600"),
        ("latin-1", "J\xfcrgen \\u65e5\\ud83d\\ude00"),
        ("ascii", "J\\u00fcrgen \\u65e5\\ud83d\\ude00"),
    ],
)
def test_characters_that_a_terminal_lacks_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    """As in JSON: a name that it cannot show is no reason to end with a traceback."""
    terminal = _open(monkeypatch, encoding, 80)
    _escape_unwritable()

    print_table(("name",), [("J\xfcrgen \u65e5\U0001f600",)])

    assert shown in terminal.written
