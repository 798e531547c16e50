"""Every block of code on every page is run or checked by a test. A block that no test claims fails here."""

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks_in, blocks_of, commands_in, text_of

OWN_TESTS = {
    "CONTRIBUTING.md": "tests/docs/test_contributing.py",
    "docs/changing-jobs.md": "tests/arqonce/test_evolution.py",
    "docs/console.md": "tests/arqonce/console/test_document.py",
    "docs/database.md": "tests/arqonce/ledger/test_neighbours.py",
    "docs/from-arq.md": "tests/docs/test_from_arq.py",
    "docs/http.md": "tests/docs/test_http.py",
    "docs/importing.md": "tests/docs/test_importing.py",
    "docs/metrics.md": "tests/arqonce/operations/test_worker_port.py",
    "docs/other-languages.md": "tests/docs/test_other_languages.py",
    "docs/security.md": "tests/security/test_document.py",
    "docs/shop.md": "tests/docs/test_shop.py",
    "docs/tracing.md": "tests/docs/test_tracing.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "examples/shop/README.md": "tests/examples/test_shop.py",
    "jobs/README.md": "tests/installed/test_producer.py",
}
"""Pages whose blocks belong together, and the test that runs all of them."""

BY_KIND = {
    "text": "",  # what a program prints, or a drawing
    "console": "tests/docs/test_commands.py",
    "program": "tests/docs/test_programs.py",
    "django": "tests/docs/test_programs.py",
    "js": "tests/docs/test_programs.py",
    "test": "tests/docs/test_examples.py",
    "file": "tests/docs/test_examples.py",
    "toml": "tests/docs/test_examples.py",
}
"""On all other pages: which test runs a block of this kind."""

OTHERS = blocks_of(besides=frozenset(OWN_TESTS))


@pytest.mark.parametrize("block", OTHERS, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    """One in another language would be executed by nobody."""
    assert block.kind in BY_KIND


@pytest.mark.parametrize("kind", [kind for kind, test in BY_KIND.items() if test])
def test_the_claimant_takes_all_blocks_of_a_kind(kind: str) -> None:
    """It asks for them by their kind, on all pages that have no test of their own, and there are some."""
    claimant = (ROOT / BY_KIND[kind]).read_text(encoding="utf-8")

    assert f'"{kind}"' in claimant
    assert "besides=frozenset(OWN_TESTS)" in claimant
    assert [block for block in OTHERS if block.kind == kind] != []


@pytest.mark.parametrize("page", [page for page in OWN_TESTS if page in PAGES])
def test_the_test_of_a_page_reads_it(page: str) -> None:
    """By its name."""
    claimant = (ROOT / OWN_TESTS[page]).read_text(encoding="utf-8")

    assert page.rpartition("/")[2] in claimant


def test_the_pages_are_found() -> None:
    """Also those that lie elsewhere."""
    assert {"README.md", "docs/tutorial.md", "arqonce/README.md", "examples/shop/README.md"} <= set(PAGES)
    assert [block for block in blocks_in("docs/producing.md") if block.kind == "js"] != []
    assert commands_in("README.md", "users-worker")[0] == ["users-worker", "migrate"]


def test_every_fence_is_closed() -> None:
    """Else a block would run into the text, and be found by nobody."""
    fences = {page: sum(line.startswith("```") for line in text_of(page).splitlines()) for page in PAGES}
    odd = [page for page in PAGES if fences[page] != 2 * len(blocks_in(page))]

    assert odd == []
