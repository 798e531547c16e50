"""The pages: sizes, links, and that each of them is part of the site."""

import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise

import arqonce
from tests.docs.blocks import PAGES, ROOT, blocks_in, text_of
from tests.docs.metrics_table import PAGE as METRICS
from tests.docs.metrics_table import with_table as with_metrics
from tests.docs.settings_table import PAGE as SETTINGS
from tests.docs.settings_table import with_table

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def test_the_readme_is_short_and_shows_code_at_once() -> None:
    """What is longer belongs to a page of docs/."""
    lines = text_of("README.md").splitlines()

    assert len(lines) <= 220
    assert lines.index("```python") < 40


def test_the_readme_leads_to_every_page() -> None:
    """To those of the reference by the site's own navigation, too."""
    linked = set(_LINK.findall(text_of("README.md")))

    assert {page for page in PAGES if page.startswith("docs/")} - linked == {"docs/index.md"}


def test_the_settings_table_is_that_of_the_code() -> None:
    """``make fix`` writes it."""
    text = SETTINGS.read_text(encoding="utf-8")

    assert text == with_table(text)


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    """``make fix`` writes it."""
    text = METRICS.read_text(encoding="utf-8")

    assert text == with_metrics(text)


def _prose(page: str) -> str:
    """Return a page without its blocks: brackets in code are no links."""
    text = text_of(page)
    for block in blocks_in(page):
        text = text.replace(block.code, "\n")
    return re.sub(r"`[^`\n]*`", "``", text)


def _anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for link in _LINK.findall(_prose(page)):
            if not link.startswith(("https://", "http://")):
                yield page, link


def test_every_link_leads_somewhere() -> None:
    """To a file of the repository, and to a heading in it. Those within docs/ are checked by ``make docs`` as well."""
    wrong = []
    for page, link in _links():
        target, _, anchor = link.partition("#")
        file = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not file.exists() or (anchor and anchor not in _anchors(str(file.relative_to(ROOT.resolve())))):
            wrong.append((page, link))

    assert wrong == []


def test_pages_of_the_site_link_only_to_each_other() -> None:
    """The rest of the repository is not there."""
    beyond = [(page, link) for page, link in _links() if page.startswith("docs/") and link.startswith("../")]

    assert beyond == []


def test_every_page_is_part_of_the_site() -> None:
    """In its navigation, once."""
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed = sorted(f"docs/{page}" for page in _leaves(navigation))

    assert listed == sorted(page for page in PAGES if page.startswith("docs/"))


def _leaves(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        yield from (page for part in entry.values() for page in _leaves(part))
    elif isinstance(entry, list):
        yield from (page for part in entry for page in _leaves(part))


def test_the_reference_has_every_exported_name() -> None:
    """By the module that defines it."""
    modules = set(re.findall(r"^::: (\S+)$", text_of("docs/reference.md"), re.MULTILINE))
    exported = [getattr(arqonce, name) for name in dir(arqonce) if not name.startswith("_")]
    homes = {thing.__module__ for thing in exported if callable(thing) and thing.__module__.startswith("arqonce.")}

    assert len(homes) > 5
    assert homes <= modules


def test_headings_descend_one_step_at_a_time() -> None:
    """So that the table of contents has no gap, and each page has one title."""
    wrong = []
    for page in PAGES:
        depths = [len(marks) for marks in re.findall(r"^(#+) ", _prose(page), re.MULTILINE)]
        if depths.count(1) != 1 or any(below - above > 1 for above, below in pairwise(depths)):
            wrong.append(page)

    assert wrong == []
