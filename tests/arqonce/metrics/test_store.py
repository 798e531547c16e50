"""The figures of a process: what is counted together, what is bounded, and what survives."""

import multiprocessing
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arqonce.metrics import families
from arqonce.metrics.board import Board
from arqonce.metrics.store import MOST_SERIES, Store, times_of
from arqonce.metrics.text import render
from tests.arqonce.operations.scrape import parse, value

NOW = 1_800_000_000.0


def _close(one: list[float], other: list[float]) -> bool:
    return one[:-1] == other[:-1] and one[-1] == pytest.approx(other[-1], rel=1e-6, abs=1e-3)


@given(st.lists(st.floats(-5, 4000).map(lambda age: round(age, 3) + 0.0004), max_size=50))
def test_ages_observed_together_are_as_observed_one_by_one(ages: list[float]) -> None:
    """One that lies ahead, by another clock, counts as none."""
    store = Store()
    together, apart = store.place(families.WAIT, "together"), store.place(families.WAIT, "apart")

    store.observe_since(together, families.WAIT, sorted((NOW - age) * 1000 for age in ages), NOW)
    for age in ages:
        store.observe(apart, families.WAIT, max(0.0, age))

    samples = store.samples()
    assert _close(samples[families.WAIT.name, ("together",)], samples[families.WAIT.name, ("apart",)])


def test_scores_that_are_no_times_are_left_out() -> None:
    """As those of aborted jobs, and what anybody may write into a queue."""
    scores = [b"1800000001000", b"inf", b"-inf", b"0", b"1.8e12", b"1e300"]

    assert (times_of(scores), times_of([b"rubbish"])) == ([1.8e12, 1_800_000_001_000.0], [])


def test_labels_that_are_made_of_what_people_send_are_bounded() -> None:
    """Of a few thousand codes, each of a kilobyte, the later ones are counted as others; what is known goes on."""
    store = Store()
    for number in range(3 * MOST_SERIES):
        store.add(store.place(families.DEAD, "work", f"{number}" + "x" * 1000))
    store.add(store.place(families.SUCCEEDED, "work"))
    totals = Store()
    for _ in range(3):  # processes that die, each with codes of its own
        other = Store()
        for number in range(MOST_SERIES):
            other.add(other.place(families.DEAD, "work", os.urandom(8).hex() + str(number)))
        totals.add_all(other.samples())

    dead = {labels: numbers for (name, labels), numbers in store.samples().items() if name == families.DEAD.name}
    assert store.samples()[families.SUCCEEDED.name, ("work",)] == [1]
    assert len(dead) <= MOST_SERIES + 1
    assert dead["<other>", "<other>"][0] > MOST_SERIES
    assert len(totals.samples()) <= MOST_SERIES + 1
    assert sum(numbers[0] for numbers in totals.samples().values()) == 3 * MOST_SERIES


def test_hostile_labels_are_written_so_that_they_are_read_again() -> None:
    """Quotes, backslashes, line ends, and what UTF-8 cannot hold."""
    store = Store()
    hostile = 'a"b\\c\nd} 1\n# TYPE x'
    store.add(store.place(families.DEAD, "work", hostile), 3)
    store.add(store.place(families.DEAD, "work", "\ud800"))
    store.observe(store.place(families.RUN, "work"), families.RUN, 0.3)

    figures = parse(render([({"process": "1"}, store.samples())]).decode())

    assert value(figures, "arqonce_jobs_dead_total", code=hostile, process="1") == 3
    assert value(figures, "arqonce_run_duration_seconds_bucket", le="0.25") == 0
    assert value(figures, "arqonce_run_duration_seconds_bucket", le="0.5") == 1
    assert value(figures, "arqonce_run_duration_seconds_count", kind="work") == 1


def _count_and_die(board: Board) -> None:
    store = Store(board.memory)
    store.add(store.place(families.CLAIMED, "work"), 7)
    store.beat(1.5)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("starts_processes")
def test_what_a_killed_process_has_counted_is_read_after_its_end() -> None:
    """To the last one; a cleared board has nothing of it."""
    board = Board.make()
    try:
        process = multiprocessing.get_context("fork").Process(target=_count_and_die, args=[board])
        process.start()
        process.join()

        assert (board.samples(), board.beat) == ({(families.CLAIMED.name, ("work",)): [7.0]}, 1.5)
        board.clear()
        assert (board.samples(), board.beat) == ({}, 0)
        assert Store(board.memory).place(families.RUN, "work") >= 0
        assert board.samples() == {(families.RUN.name, ("work",)): [0.0] * families.RUN.width}
    finally:
        board.close()
