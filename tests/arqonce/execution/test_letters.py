"""Dead letters of jobs that die together: few transactions, and each letter as if it had been written by itself."""

import asyncio
from typing import Any, ClassVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobSpec, Payload, Result
from arqonce.execution import letters
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.dead_letters import bury, bury_together, write_letter
from arqonce.execution.delivery import Delivery
from arqonce.execution.letters import Letters
from arqonce.execution.verdict import RetryLater
from arqonce.ledger.dead_jobs import STEP_BYTES, DeadLetter
from arqonce.wire.request import request_hash
from tests.promised import promise

Sessions = async_sessionmaker[AsyncSession]


class _Answer(Result):
    value: int


class _Work(Payload[_Answer]):
    job_name: ClassVar[str] = "work"
    number: int


async def _fail(_session: AsyncSession, _payload: _Work) -> _Answer:
    raise LookupError


_SPEC = JobSpec(_Work, _fail, max_attempts=1)


async def _die(dispatcher: Dispatcher, number: int, job_id: str | None = None) -> type[Exception]:
    delivery = Delivery(job_id or f"j{number}", 1, (), {"number": number})
    with pytest.raises((LookupError, RetryLater)) as raised:
        await dispatcher.run(_SPEC, delivery)
    return raised.type


async def _rows(sessions: Sessions, statement: str) -> list[Any]:
    async with sessions() as session:
        return [tuple(row) for row in await session.execute(text(statement))]


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many letters were written in each turn, 0 for one by itself."""
    found: list[int] = []
    together, alone = bury_together, bury

    async def write_together(sessions: Sessions, some: list[DeadLetter], **options: Any) -> set[str]:  # noqa: ANN401 - handed on
        found.append(len(some))
        return await together(sessions, some, **options)

    async def write_alone(*arguments: Any, **options: Any) -> bool:  # noqa: ANN401 - handed on
        found.append(0)
        return await alone(*arguments, **options)

    monkeypatch.setattr(letters, "bury_together", write_together)
    monkeypatch.setattr(letters, "bury", write_alone)
    return found


async def test_jobs_that_die_together_have_their_letters_in_a_few_transactions(
    sessions: Sessions, turns: list[int]
) -> None:
    """Each its own, with its attempt."""
    dispatcher = Dispatcher(sessions)

    await asyncio.gather(*(_die(dispatcher, number) for number in range(100)))

    asked = "SELECT dead_jobs.job_id, error, message FROM arqonce.dead_jobs JOIN arqonce.attempts USING (job_id, error)"
    written = {job_id: bytes(message) for job_id, _, message in await _rows(sessions, asked)}
    assert sorted(written) == sorted(f"j{number}" for number in range(100))
    assert all(f'"number":{job_id[1:]}}}'.encode() in message for job_id, message in written.items())
    assert (sum(turns), 0 in turns) == (100, False)
    assert len(turns) < 50


async def test_what_was_promised_is_promised_no_more(sessions: Sessions, turns: list[int]) -> None:
    """A promise of another request with the id stays, and the letter gets another id: both were accepted."""
    for number in (1, 2):
        await promise(sessions, _Work(number=number), f"j{number}")
    dispatcher = Dispatcher(sessions)

    await asyncio.gather(_die(dispatcher, 0), _die(dispatcher, 1), _die(dispatcher, 22, "j2"))

    left = await _rows(sessions, "SELECT job_id FROM arqonce.outbox")
    dead = [job_id for (job_id,) in await _rows(sessions, "SELECT job_id FROM arqonce.dead_jobs ORDER BY job_id")]
    assert left == [("j2",)]
    assert [job_id.partition("~")[:2] for job_id in dead] == [("j0", ""), ("j1", ""), ("j2", "~")]
    assert turns[-1] == 0


async def test_a_commit_under_way_holds_up_the_letter_of_its_job_alone(sessions: Sessions) -> None:
    """And decides: that job is done."""
    dispatcher = Dispatcher(sessions)
    under_way = (
        "INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt) "
        "VALUES ('j1', 'work', :hash, '{\"value\": 1}', 1)"
    )
    async with sessions() as other:
        await other.execute(text(under_way), {"hash": request_hash(_Work(number=1))})
        done = asyncio.create_task(dispatcher.run(_SPEC, Delivery("j1", 1, (), {"number": 1})))
        async with asyncio.timeout(2.5):
            others = await asyncio.gather(*(_die(dispatcher, number) for number in (2, 3)))
        was_waiting = not done.done()
        await other.commit()

    assert (others, was_waiting) == ([LookupError] * 2, True)
    assert await done == {"value": 1}
    assert await _rows(sessions, "SELECT job_id FROM arqonce.dead_jobs ORDER BY job_id") == [("j2",), ("j3",)]


async def test_while_the_database_is_silent_nobody_waits_for_several_turns(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has come meanwhile is told with the first; all are delivered again."""
    turns: list[int] = []

    async def be_silent(_sessions: Sessions, some: list[DeadLetter], **_options: object) -> set[str]:
        turns.append(len(some))
        await asyncio.sleep(0.3)  # as long as the database is silent
        raise TimeoutError

    monkeypatch.setattr(letters, "bury_together", be_silent)
    dispatcher = Dispatcher(sessions)

    ends = await asyncio.gather(*(_die(dispatcher, number) for number in range(20)))

    assert (set(ends), len(turns)) == ({RetryLater}, 1)


def _letter(job_id: str, size: int = 1) -> DeadLetter:
    return write_letter(
        LookupError(), LookupError(), job_id=job_id, job_name="work", message=b"x" * size, attempts=1, queue="arq:queue"
    )


async def test_whoever_is_cancelled_has_no_letter_and_keeps_nobody(sessions: Sessions, turns: list[int]) -> None:
    """Its job is given back while it waits for its turn."""
    together = Letters(sessions)

    async def begin(job_id: str) -> "asyncio.Task[bool]":
        task = asyncio.create_task(together.bury(_letter(job_id)))
        while not task.done() and (not turns or len(together._waiting) < int(job_id[1:])):
            await asyncio.sleep(0)
        return task

    first, second, third = [await begin(job_id) for job_id in ("j1", "j2", "j3")]
    second.cancel()

    assert all(await asyncio.gather(first, third))
    assert turns == [1, 1]
    assert await _rows(sessions, "SELECT job_id FROM arqonce.dead_jobs ORDER BY job_id") == [("j1",), ("j3",)]


async def test_two_letters_with_one_id_are_written_one_after_the_other(sessions: Sessions) -> None:
    """They are of two requests, since a job runs once at a time."""
    together = Letters(sessions)
    one, other = _letter("j1"), _letter("j1", size=2)

    written = await asyncio.gather(together.bury(one), together.bury(other))

    dead = await _rows(sessions, "SELECT octet_length(message) FROM arqonce.dead_jobs ORDER BY 1")
    assert (all(written), dead) == (True, [(1,), (2,)])


async def test_a_turn_has_a_bounded_number_of_bytes(sessions: Sessions, turns: list[int]) -> None:
    """Large messages would take as much memory again as they have already."""
    together = Letters(sessions)
    size = STEP_BYTES // 4

    written = await asyncio.gather(*(together.bury(_letter(f"j{number}", size)) for number in range(9)))

    assert (written, turns) == ([True] * 9, [4, 4, 1])


async def test_letters_for_which_there_is_no_time_are_written_in_smaller_turns(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow network or disk they were delivered again together, and met the same limit together for ever."""

    async def be_slow(sessions: Sessions, some: list[DeadLetter], **options: Any) -> set[str]:  # noqa: ANN401 - handed on
        if sum(len(one.message) for one in some) > 300_000:
            raise TimeoutError
        return await bury_together(sessions, some, **options)

    monkeypatch.setattr(letters, "bury_together", be_slow)
    together, left = Letters(sessions), [_letter(f"j{number}", 100_000) for number in range(10)]

    with pytest.raises(TimeoutError):
        await together.bury_together(left)
    at_once = await together.bury_together(left)
    for _ in range(5):  # deliveries
        ends = await asyncio.gather(*map(together.bury, left), return_exceptions=True)
        left = [one for one, end in zip(left, ends, strict=True) if end is not True]

    assert (at_once, left) == ({"j0"}, [])


@pytest.mark.parametrize("fault", [KeyError("a fault of ours"), ConnectionResetError()])
async def test_an_error_of_all_is_met_again_by_each(
    sessions: Sessions, turns: list[int], monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """One row that the database refuses must not be the end of the others' letters."""

    async def fail(*_arguments: object, **_options: object) -> set[str]:
        raise fault

    monkeypatch.setattr(letters, "bury_together", fail)
    together = Letters(sessions)

    written = await asyncio.gather(*(together.bury(_letter(f"j{number}")) for number in range(3)))

    assert (written, turns) == ([True] * 3, [0] * 3)
