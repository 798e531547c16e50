"""What ``status`` and the overview of the console say where there is very much to say."""

from datetime import UTC, datetime, timedelta

import pytest

from arqonce.commands.status_view import complaints_of, lines_of
from arqonce.connection.worker_troubles import Trouble
from arqonce.console.attention import needs_of
from arqonce.console.poll import Reading
from arqonce.ledger.tables import Pause, ScheduleState
from arqonce.overview.snapshot import LedgerFigures, QueueFigures
from arqonce.overview.status import Ledger, Status

_NOW = datetime(2026, 12, 1, tzinfo=UTC)


def _pause(number: int) -> Pause:
    return Pause(queue=f"q{number}", job_name="", reason="a fair", paused_by="ann", paused_at=_NOW, until=None)


@pytest.fixture
def crowded() -> Status:
    """Return a thousand unserved queues, pauses, schedules that are paused, and troubles of workers."""
    queues = QueueFigures(
        queues={}, kinds={}, workers=[], unserved=[f"q{number}" for number in range(1000)],
        troubles=[Trouble("clocks", f"the clock of h{number} is off", "let NTP set it") for number in range(1000)],
    )  # fmt: skip
    figures = LedgerFigures(
        promised=None, dead=None, done=None, failed=None, losses=None, estimates=None,
        pauses=[_pause(number) for number in range(1000)],
        paused_schedules=[ScheduleState(name=f"s{number}") for number in range(1000)],
    )  # fmt: skip
    return Status(queues=queues, ledger=Ledger(figures=figures))


def test_status_names_some_and_counts_the_others(crowded: Status) -> None:
    """Twenty of each kind, and how many more there are."""
    lines, complaints = lines_of(crowded), complaints_of(crowded)

    more = [value for _, value in lines if "more" in value]
    assert more == ["980 more: see queue list", "980 more: see schedules list"]
    assert complaints[20] == complaints[41] == "and 980 more like this: status --json has them"
    assert (len(lines), len(complaints)) == (43, 42)


def test_the_console_names_unserved_queues_in_one_line(crowded: Status) -> None:
    """Up to three have a line each."""
    reading = Reading(at=_NOW + timedelta(seconds=1), ledger=crowded.ledger, queues=crowded.queues)

    assert [need.title for need in needs_of(reading) if "Jobs wait" in need.title] == [
        "Jobs wait in 1,000 queues that no worker serves: q0, q1, q2, ..."
    ]
