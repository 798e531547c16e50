"""docs/shop.md is examples/shop, file for file: what it shows is run by the tests of the example, and by its own."""

from tests.docs.blocks import ROOT, Block, blocks_in, text_of

PAGE = "docs/shop.md"
SHOP = ROOT / "examples" / "shop"
FILES = [block for block in blocks_in(PAGE) if block.language != "console"]
SAME_FOR_ALL = {"__init__.py", "conftest.py", "py.typed"}


def _content(block: Block) -> str:
    return block.code.partition("\n")[2]


def test_its_blocks_are_the_files_of_the_example() -> None:
    """To the letter, below the line that names the file."""
    shown = {str(block.file): _content(block) for block in FILES}

    assert shown == {name: (SHOP / name).read_text(encoding="utf-8") for name in shown}


def test_it_shows_all_files_but_those_that_alembic_writes() -> None:
    """Whoever follows it has the example in the end."""
    files = [file for file in (*SHOP.rglob("*.py"), SHOP / "pyproject.toml") if "migrations" not in file.parts]

    assert {str(block.file) for block in FILES} == {
        str(file.relative_to(SHOP)) for file in files if file.name not in SAME_FOR_ALL
    }


def test_its_commands_are_run_where_they_stand_elsewhere() -> None:
    """In the example's README, and in the tutorial for another project."""
    run = [line for page in ("examples/shop/README.md", "docs/tutorial.md") for line in _lines(page)]

    assert [line for line in _lines(PAGE) if line not in run] == []


def _lines(page: str) -> list[str]:
    lines = "".join(block.code for block in blocks_in(page, "console")).splitlines()
    return [line.replace("guestbook", "shop").replace('-m "entries"', '-m "orders and reports"') for line in lines]


def test_its_links_lead_on() -> None:
    """To the pages that describe what it uses."""
    links = {part.partition(")")[0].partition("#")[0] for part in text_of(PAGE).split("](")}

    assert {"jobs.md", "schedules.md", "queues.md", "testing.md", "operations.md", "security.md"} <= links
