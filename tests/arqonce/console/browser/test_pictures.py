"""Pictures of every page, for people to look at, and the one of the README."""

import os
from pathlib import Path
from struct import unpack
from typing import Any

from tests.arqonce.console.browser.fleet import Fleet
from tests.arqonce.console.browser.people import OpenPage
from tests.arqonce.console.browser.visits import Found, draw
from tests.arqonce.console.conftest import JANE
from tests.docs.blocks import ROOT

SCREENS = ROOT / ".cache" / "screens"
"""Where they are left."""

_PICTURE = ROOT / "docs" / "console.png"

_SIZE: Any = {"width": 1100, "height": 664}

_LARGEST = 40_000
"""Bytes: everybody who clones the repository gets them."""


async def test_every_page_can_be_drawn(open_page: OpenPage, fleet: Fleet, found: Found) -> None:
    """In light and dark, and in a narrow window."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page = await open_page(token=JANE)

    for address in found.pages.values():
        await draw(page, fleet.url + address, SCREENS)

    assert len(list(SCREENS.glob("*.dark.png"))) >= len(found.pages)


async def test_the_picture_of_the_readme_can_be_drawn_anew(open_page: OpenPage) -> None:
    """``make picture`` writes it; otherwise it is left beside the others."""
    picture = Path(os.environ.get("PICTURE", SCREENS / "readme.png"))
    picture.parent.mkdir(parents=True, exist_ok=True)
    page = await open_page(token=JANE, viewport=_SIZE)

    await page.screenshot(path=picture)

    assert _size_of(picture) == _size_of(_PICTURE) == (_SIZE["width"], _SIZE["height"])


def test_the_picture_of_the_readme_is_small() -> None:
    """The README shows it, and it is no burden."""
    assert "(docs/console.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert _PICTURE.stat().st_size < _LARGEST


def _size_of(png: Path) -> tuple[int, int]:
    width, height = unpack(">II", png.read_bytes()[16:24])
    return width, height
