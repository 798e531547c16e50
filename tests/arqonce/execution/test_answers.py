"""A result is written once, and the same whichever way it is written."""

import traceback
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from arqonce import JobSpec, Payload, Result
from arqonce.execution.answers import dump_result
from arqonce.execution.verdict import WrongResultError
from arqonce.wire.codec import encode_result


class Colour(Enum):
    """Two."""

    RED = "red"
    BLUE = "blue"


class Inner(Result):
    """Inside."""

    text: str = Field(alias="inner-text", default="")
    texts: tuple[str, ...] = ()


class Plain(Result):
    """Fields of every type that comes back equal."""

    text: str = ""
    number: int = 0
    truth: bool | None = None
    day: date = date(2026, 1, 1)
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    lasts: timedelta = timedelta(0)
    id: UUID = UUID(int=0)
    amount: Decimal = Decimal(0)
    colour: Colour = Colour.RED
    inner: Inner = Inner()


class Ask(Payload[Plain]):
    """Ask for it."""

    job_name = "ask"


async def _ask(_session: object, _payload: Ask) -> Plain:
    return Plain()


SPEC = JobSpec(Ask, _ask)


RESULTS = st.builds(
    Plain,
    text=st.text(),
    number=st.integers(-(10**30), 10**30),
    truth=st.none() | st.booleans(),
    day=st.dates(),
    at=st.datetimes(timezones=st.just(UTC)),
    lasts=st.timedeltas(),
    id=st.uuids(),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
    colour=st.sampled_from(Colour),
    inner=st.builds(Inner, texts=st.lists(st.text()).map(tuple)),
)


@given(RESULTS)
def test_what_is_written_at_once_is_what_would_be_written_in_two_steps(result: Plain) -> None:
    """Stored results of earlier versions stay comparable, and what is refused stays refused."""
    try:
        slowly = encode_result(result.model_dump(mode="json"))
    except ValueError:
        with pytest.raises(WrongResultError):
            dump_result(SPEC, result)
        return

    dumped = dump_result(SPEC, result)

    assert (dumped.text, dumped.result) == (slowly, result.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (Plain().model_copy(update={"number": "hidden-word"}), "Plain.number: Input should be a valid integer"),
        (Plain().model_copy(update={"number": None}), "Plain.number: Input should be a valid integer"),
        (Plain().model_copy(update={"text": object()}), "Plain.text: Input should be a valid string"),
        (Plain().model_copy(update={"at": "hidden-word"}), "Plain.at: Input should be a valid datetime"),
        (
            Plain(inner=Inner().model_copy(update={"texts": "hidden-word"})),
            "Plain.inner has a value of another type",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_result_that_nobody_validated_is_refused_before_the_commit(result: Plain, problem: str) -> None:
    """Its effect would be stored, and no producer could read it. Values are nowhere."""
    with pytest.raises(WrongResultError, match=problem) as caught:
        dump_result(SPEC, result)

    assert "hidden-word" not in "".join(traceback.format_exception(caught.value))
