"""What ``status`` and the overview of the console say where there is very much to say."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from arqonce.commands.status_view import complaints_of, lines_of
from arqonce.commands.status_watch import watch_status
from arqonce.connection.worker_troubles import Trouble
from arqonce.console.attention import needs_of
from arqonce.console.poll import Reading
from arqonce.failures import QueueUnavailableError
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


class _Reader:
    """Is asked twice; Redis is away for the second time."""

    def __init__(self, answers: list[Status]) -> None:
        self._answers = answers

    async def read(self) -> Status:
        """Return an answer."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr] # in a task
            raise QueueUnavailableError("Redis is away")
        return self._answers.pop()


@pytest.mark.parametrize("terminal", ["a pipe", "dumb"])
async def test_each_look_is_printed_where_nothing_can_be_overwritten(
    crowded: Status, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: str
) -> None:
    """At once: rich's display shows nothing there before its end."""

    @asynccontextmanager
    async def open_reader(*_: object) -> AsyncIterator[_Reader]:
        yield _Reader([crowded])

    monkeypatch.setattr("arqonce.commands.status_watch.open_status", open_reader)
    monkeypatch.setattr("arqonce.commands.status_watch._WATCH_EVERY", timedelta(0))
    monkeypatch.setenv("REDIS_URL", "redis://localhost")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal == "dumb")

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(watch_status(as_json=False))

    shown = capsys.readouterr()
    assert shown.out.count(" UTC\n") == 2
    assert "workers alive" in shown.out
    assert shown.err.splitlines()[-1] == "Redis is away"


def test_the_console_names_unserved_queues_in_one_line(crowded: Status) -> None:
    """Up to three have a line each."""
    reading = Reading(at=_NOW + timedelta(seconds=1), ledger=crowded.ledger, queues=crowded.queues)

    assert [need.title for need in needs_of(reading) if "Jobs wait" in need.title] == [
        "Jobs wait in 1,000 queues that no worker serves: q0, q1, q2, ..."
    ]
