"""What a schedule says, what is refused, and how a project tests its own."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest

from arqonce import JobSpec, Payload, Registry, Result, Schedule
from arqonce.failures import InvalidMessageError
from arqonce.registries import RegistryError, load_registry


class MakeReport(Payload[Result]):
    """Make the report of a day."""

    job_name: ClassVar[str] = "make_report"
    day: date | None = None
    share: float = 0


async def _make_report(_session: Any, _payload: MakeReport) -> Result:  # noqa: ANN401 - never called
    return Result()


SPEC = JobSpec(MakeReport, _make_report)
NIGHTLY = Schedule(
    "nightly", lambda slot: MakeReport(day=slot.date()), cron="30 2 * * *", zone="Europe/Berlin", overlap="queue"
)
PLAIN = Schedule("plain", MakeReport(), every=timedelta(minutes=5))
REGISTRY = Registry(SPEC, schedules=[NIGHTLY, PLAIN])


def test_a_project_tests_its_schedule_in_a_line() -> None:
    """Slots and payloads are local times, so that a date in the payload is that of the zone."""
    nightly = REGISTRY.schedules["nightly"]
    noon = datetime(2026, 3, 28, 12, tzinfo=UTC)

    first, second = nightly.next_slots(after=noon, count=2)

    assert [f"{slot:%d %H:%M %Z}" for slot in (first, second)] == ["29 03:00 CEST", "30 02:30 CEST"]
    assert nightly.payload_for(datetime(2026, 3, 28, 23, 30, tzinfo=UTC)) == MakeReport(day=date(2026, 3, 29))
    assert nightly.job_id(first) == "schedule:nightly:2026-03-29T01:00:00Z"
    assert PLAIN.next_slots()[0] > datetime.now(UTC)


def test_what_is_said_is_the_definition_and_the_payload_is_not() -> None:
    """A deploy that changes a payload's default is no other schedule; each other change is, and so is another name."""
    same = Schedule("plain", MakeReport(share=0.5), every=timedelta(minutes=5))
    others = [
        Schedule("plain", MakeReport(), every=timedelta(minutes=6)),
        Schedule("plain", MakeReport(), every=timedelta(minutes=5), queue="low"),
        Schedule("plain", MakeReport(), every=timedelta(minutes=5), overlap="queue"),
        Schedule("plain", MakeReport(), every=timedelta(minutes=5), catch_up=timedelta(0)),
        Schedule("plain", MakeReport(), every=timedelta(minutes=5), ends=datetime(2030, 1, 1, tzinfo=UTC)),
        Schedule("other", MakeReport(), every=timedelta(minutes=5)),
    ]

    assert same.definition == PLAIN.definition
    assert len({PLAIN.definition, *(other.definition for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "a b"}, ValueError, "the schedule's name 'a b' must be 1 to 100 of"),
        ({"name": ""}, ValueError, "the schedule's name"),
        ({"cron": "61 * * * *"}, ValueError, "the schedule x: the cron expression '61 * * * *' cannot be read"),
        ({"zone": "Europe/Berlim"}, ValueError, "the schedule x: there is no time zone 'Europe/Berlim'"),
        ({"overlap": "drop"}, ValueError, 'the schedule x: overlap is "skip" or "queue"'),
        ({"catch_up": 3600}, ValueError, "the schedule x: catch_up is a timedelta"),
        ({"queue": ""}, ValueError, "the schedule x: queue is the name"),
        ({"payload": MakeReport}, TypeError, "the schedule x: its payload is an instance of a payload"),
        ({"payload": "make_report"}, TypeError, "the schedule x: its payload is an instance"),
        ({"payload": MakeReport(share=float("inf"))}, InvalidMessageError, "MakeReport.share"),
    ],
)
def test_a_wrong_schedule_is_refused_where_it_is_written(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    """With its name and the cure."""
    said: dict[str, Any] = {"name": "x", "payload": MakeReport(), "cron": "* * * * *"} | change

    with pytest.raises(error, match=re.escape(message)):
        Schedule(**said)


def test_a_function_that_makes_no_payload_is_named() -> None:
    """Not the slot's job, but the schedule, is at fault."""
    with pytest.raises(TypeError, match="the schedule x: its function returns NoneType"):
        Schedule("x", lambda _slot: None, cron="* * * * *").payload_for(datetime.now(UTC))  # type: ignore[arg-type,return-value] # that is the point


def test_a_registry_refuses_what_it_cannot_run_or_tell_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In itself and together with others."""
    with pytest.raises(ValueError, match=r"plain promises jobs of the kind make_report, .*: add JobSpec\(MakeReport"):
        Registry(schedules=[PLAIN])
    with pytest.raises(ValueError, match="two schedules have the name plain"):
        Registry(SPEC, schedules=[PLAIN, Schedule("plain", MakeReport(), cron="* * * * *")])
    twin = Registry(
        JobSpec(type("Twin", (MakeReport,), {"job_name": "twin", "__module__": __name__}), _make_report),
        schedules=[Schedule("nightly", lambda _slot: MakeReport(), every=timedelta(days=1))],
    )
    monkeypatch.setattr("jobs.registry.REGISTRY", twin)
    with pytest.raises(RegistryError, match="the schedule nightly is one of shop: give it another name"):
        load_registry("jobs.registry:REGISTRY", REGISTRY, owner="shop")
    assert list(Registry().joined([REGISTRY]).schedules) == ["nightly", "plain"]
