"""Finds the pages for people and the blocks of code in them. ``test_blocks.py`` says which test runs which block."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PLACES = ("*.md", "docs/*.md", "arqonce/*.md", "jobs/*.md", "examples/*/*.md")

PAGES = [str(file.relative_to(ROOT)) for place in _PLACES for file in sorted(ROOT.glob(place))]
"""Every page, as a path from the root of the repository."""

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"(?:# |// )(\S+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """A block between two fences."""

    page: str
    line: int
    language: str
    code: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if its first line is a comment with a name."""
        match = _FILE.match(self.code)
        return None if match is None else match[1]

    @property
    def kind(self) -> str:
        """How it is tested: by its language, and for Python by what it is."""
        if self.language != "python":
            return self.language or "text"
        if "from django" in self.code:
            return "django"
        if self.file is not None:
            return "file"
        return "test" if re.search(r"^(async )?def test_", self.code, re.MULTILINE) else "program"

    @property
    def name(self) -> str:
        """A name for it, unique among all blocks, that a module may have."""
        page = re.sub(r"\W", "_", self.page.removeprefix("docs/").removesuffix(".md")).lower()
        return f"{page}_{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The lines of a block of commands, each as its words."""
        return [shlex.split(line) for line in self.code.splitlines()]

    def __str__(self) -> str:
        """Say where it stands, for the names of tests."""
        return f"{self.page}:{self.line}"


def text_of(page: str) -> str:
    """Read a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks_in(page: str, *kinds: str) -> list[Block]:
    """Return the blocks of a page, of some kinds or all, in their order."""
    text = text_of(page)
    found = (
        Block(page, text.count("\n", 0, match.start()) + 1, match[1].strip(), match[2])
        for match in _FENCE.finditer(text)
    )
    return [block for block in found if not kinds or block.kind in kinds]


def blocks_of(*kinds: str, besides: Iterator[str] | frozenset[str] = frozenset()) -> list[Block]:
    """Return the blocks of some kinds on all pages but some."""
    skipped = set(besides)
    return [block for page in PAGES if page not in skipped for block in blocks_in(page, *kinds)]


def commands_in(page: str, program: str) -> list[list[str]]:
    """Return a program's commands in the blocks of a page, in their order."""
    return [words for block in blocks_in(page, "console") for words in block.commands if words[0] == program]
