"""The table of faults: each row has a test that exists, or says why it needs none."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def _rows() -> Iterator[list[str]]:
    """Yield the cells of each row of each table, without heads and rulers."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            yield cells


def _tests_in(cell: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", cell)


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_is_numbered_and_whole() -> None:
    """Number, fault, arq, ours, arq's class here, test; the numbers count from one."""
    rows = list(_rows())

    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert {len(row) for row in rows} == {6}
    assert all(all(row) for row in rows)


def test_every_row_names_its_test() -> None:
    """Or says why the fault is impossible here."""
    lacking = [row[0] for row in _rows() if not _tests_in(row[-1]) and not row[-1].startswith("impossible here: ")]

    assert lacking == []


def test_every_named_test_exists() -> None:
    """A test that is renamed is renamed in the table too."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE.read_text(encoding="utf-8"))

    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists() or (name and name not in _functions(ROOT / file))
    ]
    assert named
    assert missing == []
