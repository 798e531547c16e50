"""How many jobs share a transaction: as many as are quick together, and fewer the more often one of them fails."""

from arqonce.execution.pace import Pace

QUICK, SLOW = 0.0001, 1.0


def test_the_size_doubles_up_to_the_most() -> None:
    """From a few on."""
    pace, sizes = Pace(50), []
    for _ in range(6):
        sizes.append(pace.size)
        pace.shared([QUICK] * pace.size, idle=0.5)

    assert sizes == [4, 8, 16, 32, 50, 50]


def test_a_transaction_that_was_not_full_shows_nothing() -> None:
    """The next one may have as many as before."""
    pace = Pace(50)
    for _ in range(6):
        pace.shared([QUICK], idle=0.5)

    assert pace.size == 4


def test_handlers_of_one_transaction_take_50_ms_together() -> None:
    """And each slot has one if they mostly wait."""
    pace = Pace(500)
    for _ in range(50):
        pace.shared([0.005] * pace.size, idle=0.5)

    assert (pace.size, round(pace.spread, 3)) == (10, 0.8)


def test_where_transactions_wait_for_each_other_fewer_run_at_once() -> None:
    """However long their turns take: the event loop is busy. Those that wait for a server leave it idle."""
    pace, spreads = Pace(500), []
    for idle in (0.9, 0.3, 0.1):
        for _ in range(20):
            pace.shared([0.02] * pace.size, idle=idle)
        spreads.append(round(pace.spread, 2))

    assert spreads == [1, 1, 0]


def test_a_single_long_turn_counts_little() -> None:
    """A new connection, or a machine that stood still."""
    pace = Pace(500)
    pace.shared([SLOW, QUICK, QUICK, QUICK], idle=0.5)

    assert pace.size == 8


def test_a_failure_halves_it_and_after_that_it_grows_by_one() -> None:
    """As the windows of TCP do."""
    pace = Pace(100)
    for _ in range(4):
        pace.shared([QUICK] * pace.size, idle=0.5)
    pace.failed(pace.size, is_slow=False)
    sizes = [pace.size]
    pace.shared([QUICK] * pace.size, idle=0.5)

    assert [*sizes, pace.size] == [32, 33]


def test_slow_ones_share_with_nobody_and_are_tried_ever_more_rarely() -> None:
    """While they take long in transactions of their own they are not tried at all."""
    pace, pauses = Pace(100), []
    for _ in range(3):
        pace.failed(pace.size, is_slow=True)
        pauses.append(0)
        while pace.size == 1:
            pace.alone(seconds=QUICK)
            pauses[-1] += 1
    pace.failed(pace.size, is_slow=True)
    for _ in range(1000):
        pace.alone(seconds=SLOW)

    assert (pauses, pace.size) == ([16, 32, 64], 1)


def test_pairs_that_fail_rest_too() -> None:
    """Where each second job is refused, sharing costs more than it saves."""
    pace = Pace(100)
    for _ in range(2):
        pace.failed(pace.size, is_slow=False)

    assert pace.size == 1


def test_most_one_shares_never() -> None:
    """Whatever happens."""
    pace = Pace(1)
    sizes = {pace.size}
    pace.failed(1, is_slow=False)
    for _ in range(100):
        pace.alone(seconds=QUICK)
        sizes.add(pace.size)

    assert sizes == {1}
