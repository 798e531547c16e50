"""How many there are, in words: counted, or about."""

import pytest

from arqonce.ledger.overview import MOST_READ, DeadBy, Estimates
from arqonce.overview.snapshot import LedgerFigures


@pytest.mark.parametrize(
    ("letters", "about", "words"),
    [
        (0, None, "0"),
        (4999, 1, "4,999"),
        (MOST_READ, None, "5,000 or more"),
        (MOST_READ, 300, "5,000 or more"),  # the table was analyzed long ago
        (MOST_READ, 1_004_321, "about 1,000,000"),
        (MOST_READ, 77_500, "about 78,000"),
    ],
)
def test_what_was_not_counted_is_estimated(letters: int, about: int | None, words: str) -> None:
    """With two digits: more of them would be a lie."""
    figures = LedgerFigures(
        promised=None, dead=[DeadBy("x", "y", letters, 0)], done=None, failed=None, losses=None, pauses=None,
        paused_schedules=None, estimates=Estimates(None, about),
    )  # fmt: skip

    assert figures.all_dead == words
