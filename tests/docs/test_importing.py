"""docs/importing.md: its commands work in their order, and its table of columns is that of the code."""

import re
import sys
from pathlib import Path

import pytest

from people.columns import WORDS
from tests.docs.blocks import ROOT, commands_in, text_of
from tests.warm import run

PAGE = "docs/importing.md"
_ROLES = ("name", "first name", "last name", "email")


@pytest.mark.usefixtures("starts_processes", "redis", "sessions", "start_worker")
def test_the_commands_work_in_their_order(
    environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each ends with 0, and shows or stores the people of its file."""
    request.getfixturevalue("start_worker")()
    (tmp_path / "people.csv").write_text("Name;E-Mail\nZoë;zoe@example.org\n")
    (tmp_path / "customers.csv").write_text("Title,Customer,Main contact\nDr.,Zoë,zoe@example.org\n")
    (tmp_path / "old.csv").write_bytes("Name;E-Mail\nHélène;\n".encode("cp1252"))
    commands = [[word.replace('"', "") for word in command[1:]] for command in commands_in(PAGE, "users-worker")]

    done = [run([sys.executable, "-m", "worker", *command], environment, cwd=tmp_path) for command in commands]

    assert [(one.returncode, one.stderr) for one in done if one.returncode != 0] == []
    found = [re.search(r"Dr\. Zoë|Zoë|Hélène|created 1,", one.stdout) for one in done]
    assert [match and match[0] for match in found] == ["Zoë", "created 1,", "Dr. Zoë", "Hélène"]


def test_the_table_has_the_columns_of_the_code() -> None:
    """Every word, in its language and role."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text_of(PAGE).splitlines() if "|" in line
    ]
    written = {row[0]: row[1:] for row in rows if row[0] in WORDS}

    expected = {language: [", ".join(roles.get(role, ())) for role in _ROLES] for language, roles in WORDS.items()}
    assert written == expected


def test_the_page_is_found_from_the_others() -> None:
    """Where people look for commands."""
    assert "importing.md" in (ROOT / "docs/operations.md").read_text(encoding="utf-8")
