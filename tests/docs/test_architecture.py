"""docs/architecture.md names files that exist, and in each answer the name that decides."""

import re
from collections.abc import Iterator

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")

QUESTIONS = 10
MOST_FILES, MOST_LINES = 11, 2000
SITTING = 1500
TERMS = {
    "attempt", "baton", "claim", "dead letter", "epoch", "lease", "outbox row", "receipt", "relay", "verdict",
    "watcher",
}  # fmt: skip


def _rows(section: str) -> Iterator[list[str]]:
    """Yield the cells of each row of a section's table, without its head and ruler."""
    lines = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    for row in rows[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def _paths(text: str) -> list[str]:
    """Return what looks like a file or a folder of this repository."""
    return re.findall(r"`([\w.]+(?:/[\w.]*)+)`", text)


def test_every_path_exists() -> None:
    """A file that moves, moves on the page too."""
    named = _paths(TEXT)

    assert len(named) > 60
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_ordinary_way_through_a_worker_is_short() -> None:
    """Who follows one job reads few files, and no more lines than the page says."""
    steps = {step: _paths(files) for step, _, files in _rows("The way of a job") if step in {"3", "4", "5", "6"}}

    files = {path for paths in steps.values() for path in paths}
    lines = sum(len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in files)
    assert len(steps) == 4
    assert (len(files), lines < MOST_LINES) == (MOST_FILES, True), f"{lines} lines"


def test_the_application_is_read_at_one_sitting() -> None:
    """What it is besides the library, without what reads files and what serves HTTP."""
    files = [file for room in ("db", "jobs", "worker") for file in (ROOT / room).rglob("*.py")]

    assert f"{SITTING:,} lines" in TEXT
    assert len(files) > 20
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) < SITTING


def test_every_answer_has_the_name_that_decides() -> None:
    """In each of the files that it names."""
    rows = list(_rows("Ten questions"))

    lacking = [
        (question, path)
        for question, files, name in rows
        for path in _paths(files)
        if not re.search(
            rf"\b\w*{re.escape(name.strip('`'))}\b", (ROOT / path).read_text(encoding="utf-8"), re.IGNORECASE
        )
    ]
    assert len(rows) == QUESTIONS
    assert all(_paths(files) for _, files, _ in rows)
    assert lacking == []


def test_every_room_is_on_the_page() -> None:
    """A new folder of the library gets a line."""
    rooms = {f"arqonce/{file.parent.name}/" for file in (ROOT / "arqonce").glob("*/__init__.py")}

    assert rooms <= set(_paths(TEXT))


def test_every_term_has_one_meaning() -> None:
    """In one row, and in the order of the alphabet."""
    terms = [term for term, _ in _rows("Glossary")]

    assert set(terms) >= TERMS
    assert sorted(set(terms)) == sorted(terms)
