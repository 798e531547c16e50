"""How many there are, in words: counted, or about."""

import pytest

from arqonce.ledger.overview import MOST_QUEUES, MOST_READ, DeadBy, Estimates, PromisedIn
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


@pytest.mark.parametrize(
    ("queues", "promised", "overdue"),
    [(MOST_QUEUES, "40", "20"), (MOST_QUEUES + 1, "about 300,000", "21 or more")],
)
def test_queues_that_were_not_counted_are_not_forgotten(queues: int, promised: str, overdue: str) -> None:
    """The sum of the first twenty is not all."""
    figures = LedgerFigures(
        promised=[PromisedIn(f"q{number}", 2, 1, is_more=False) for number in range(queues)],
        dead=None, done=None, failed=None, losses=None, pauses=None,
        paused_schedules=None, estimates=Estimates(300_000, None),
    )  # fmt: skip

    assert (figures.all_promised, figures.all_overdue) == (promised, overdue)
