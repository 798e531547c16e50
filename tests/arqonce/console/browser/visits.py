"""Looks at every page that links lead to, once, for all tests that ask for something about all pages."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

from playwright.async_api import Page

from tests.arqonce.console.browser.people import NARROW, WIDE
from tests.arqonce.console.conftest import Browser

_MOST = 60
"""More pages than the console has kinds of pages: a loop of links must end."""


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a link leads."""
        if tag == "a":
            self.found += [value or "" for name, value in attrs if name == "href"]


def kind_of(address: str) -> str:
    """Return what addresses of one kind of page have in common: the path, and the names of the parameters."""
    parts = urlsplit(address)
    names = sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return "?".join(filter(None, (parts.path, "&".join(names))))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where the links of the pages lead."""

    pages: Mapping[str, str]
    """An address of each kind of page."""

    templates: Mapping[str, str]
    """An address of each path; but one preview stands for all, which differ in their words alone."""

    dead_ends: Mapping[str, str]
    """Links to what is no page, and what is said of them."""


async def follow_links(browser: Browser) -> Found:
    """Follow links from the overview, one to each kind of page."""
    pages, templates, dead_ends, waiting = dict[str, str](), dict[str, str](), dict[str, str](), ["/"]
    while waiting and len(pages) < _MOST:
        address = waiting.pop(0)
        if (kind := kind_of(address)) in pages or kind in dead_ends:
            continue
        answer = await browser.get(address)
        if answer.status != 200:
            dead_ends[kind] = f"{answer.status} {answer.page.text}"
            continue
        pages[kind] = address
        templates.setdefault("a preview" if 'id="confirm"' in answer.body else urlsplit(address).path, address)
        links = [urljoin(address, link) for link in _Links(answer.body).found if not link.startswith("#")]
        waiting += [link for link in links if link.startswith("/")]
    return Found(pages=pages, templates=templates, dead_ends=dead_ends)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What was found in one page."""

    violations: list[str]
    """What axe-core says, in both looks."""

    too_wide: list[str]
    """Elements that make the page wider than a narrow screen."""

    title: str
    headings: int


TOO_WIDE = """() => {
  const {clientWidth, scrollWidth} = document.documentElement;
  const rows = [...document.querySelectorAll(".scroll:has(.labelled)")];
  const tables = rows.filter((one) => one.scrollWidth > one.clientWidth);
  if (scrollWidth <= clientWidth) return tables.map((one) => one.outerHTML.slice(0, 120));
  const all = [...document.querySelectorAll("body *")];
  const wide = all.filter((one) => one.getBoundingClientRect().right > clientWidth);
  return [`${scrollWidth} pixels`, ...wide.slice(0, 5).map((one) => one.outerHTML.slice(0, 120))];
}"""
"""A script that returns the elements that make a page wider than its window."""

_AXE = """async (options) => (await axe.run(document, options)).violations.map(
  ({id, help, nodes}) => `${id}: ${help}: ` + nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(" | "))"""

_ALL_RULES: Mapping[str, Any] = {"resultTypes": ["violations"]}

_COLOURS: Mapping[str, Any] = {**_ALL_RULES, "runOnly": ["color-contrast"]}
"""All that differs between the looks."""


async def visit(page: Page, address: str, axe: str) -> Visit:
    """Look at a page in both looks and in a narrow window."""
    await page.set_viewport_size(WIDE)
    await page.emulate_media(color_scheme="light")
    await page.goto(address)
    await page.evaluate(axe)  # not as a script of the page, which its policy forbids
    light = await page.evaluate(_AXE, _ALL_RULES)
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate(_AXE, _COLOURS)
    await page.set_viewport_size(NARROW)
    return Visit(
        violations=[*(f"light: {one}" for one in light), *(f"dark: {one}" for one in dark)],
        too_wide=await page.evaluate(TOO_WIDE),
        title=await page.title(),
        headings=await page.locator("h1").count(),
    )


async def draw(page: Page, address: str, folder: Path) -> None:
    """Write pictures of a page: light, dark and narrow."""
    name = re.sub(r"[^a-z]+", "-", kind_of(urlsplit(address)._replace(scheme="", netloc="").geturl())).strip("-")
    await page.goto(address)
    for look, size in (("light", WIDE), ("dark", WIDE), ("narrow", NARROW)):
        await page.set_viewport_size(size)
        await page.emulate_media(color_scheme="dark" if look == "dark" else "light")
        await page.screenshot(path=folder / f"{name or 'overview'}.{look}.png", full_page=True)
