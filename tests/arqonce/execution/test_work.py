"""Every way in which a run can end: on record, or not at all."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from arq.connections import ArqRedis
from arq.worker import Retry, RetryJob
from pydantic import field_serializer, field_validator
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.arq.worker import Worker
from arqonce.execution import dead_letters, record, refusals
from arqonce.execution import letters as letters_together
from arqonce.execution import work as registry_work
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.record import Record
from arqonce.execution.verdict import RetryLater, WrongResultError
from arqonce.execution.work import RegistryJob
from arqonce.failures import InvalidPayloadError, JobFailedError
from arqonce.ledger.recorded import receipt_by_job_id
from arqonce.outbox import enqueue_in
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import now_ms
from arqonce.wire.message import Message
from arqonce.wire.request import payload_tag
from arqonce.work import Outcome
from db.users import insert_user
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests.arqonce.conftest import BuildWorker, build_recording_worker, run_in_background, stop
from tests.conftest import wait_until_async
from tests.faults.observe import letters

Sessions = async_sessionmaker[AsyncSession]


class Answer(Result):
    """Whatever the test answers."""

    value: Any = None
    number: float | list[float] = 0.0


class Work(Payload[Answer]):
    """A job whose handler is the test's."""

    job_name: ClassVar[str] = "work"
    text: str = ""


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@dataclass(frozen=True)
class _FrozenError(Exception):
    code: int = 7


class _TakenError(JobFailedError):
    """A refusal with a constructor of its own."""

    code = "seat_taken"

    def __init__(self, seat: int) -> None:
        super().__init__(f"seat {seat} is taken")


class _BareError(JobFailedError):
    """A refusal whose constructor calls no other."""

    code = "bare"

    def __init__(self) -> None:
        self.seat = 7


async def _receipts(sessions: Sessions) -> dict[str, Any]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, coalesce(result, failure) AS answer FROM arqonce.receipts"))
        return {row.job_id: row.answer for row in rows}


def _spec(handler: Callable[[AsyncSession, Work], Awaitable[Answer]], **limits: Any) -> JobSpec[Any, Any]:  # noqa: ANN401 - handed on
    return JobSpec(Work, handler, **{"max_attempts": 1} | limits)


async def _outcome(sessions: Sessions, spec: JobSpec[Any, Any], **fields: object) -> object:
    run = Dispatcher(sessions).run(spec, Delivery("j1", 1, (), fields))
    return (await asyncio.gather(run, return_exceptions=True))[0]


async def test_when_all_limits_expire_in_one_turn_the_end_is_a_deadline(sessions: Sessions) -> None:
    """A stopped process finds them all over: no timer but the deadline's ends an attempt."""

    async def stand_still(_session: AsyncSession, _payload: Work) -> Answer:
        await asyncio.sleep(0)
        time.sleep(0.2)  # noqa: ASYNC251 - as if the process were stopped
        await asyncio.sleep(60)
        return Answer()

    spec = _spec(stand_still, deadline=timedelta(milliseconds=50))
    outcome = await _outcome(sessions, spec)

    assert (getattr(outcome, "code", outcome), await letters(sessions)) == (
        "deadline_exceeded",
        {"j1": "deadline_exceeded"},
    )


@pytest.mark.parametrize("error", [_MuteError(), _FrozenError()], ids=["no text", "frozen"])
async def test_an_error_that_cannot_be_told_is_on_record(sessions: Sessions, error: Exception) -> None:
    """Its letter has its type at least; without a letter the job would never end, or end unseen."""

    async def fail(_session: AsyncSession, _payload: Work) -> Answer:
        raise error

    outcome = await _outcome(sessions, _spec(fail))

    assert await letters(sessions) == {"j1": type(outcome).__name__}


@pytest.mark.parametrize(("refusal", "kind"), [(_TakenError(7), "seat_taken"), (_BareError(), "bare")])
async def test_a_refusal_with_a_constructor_of_its_own_is_told_again(
    sessions: Sessions, refusal: JobFailedError, kind: str
) -> None:
    """Delivered again, the job answers with the same refusal: of its class, whatever that is made of."""

    async def refuse(_session: AsyncSession, _payload: Work) -> Answer:
        raise refusal

    told = []
    for attempt in (1, 2):
        with pytest.raises(type(refusal)) as caught:
            await Dispatcher(sessions).run(_spec(refuse, max_attempts=5), Delivery("j1", attempt, (), {}))
        told.append((caught.value.code, caught.value.message))

    assert told == [(kind, refusal.message)] * 2


async def test_a_message_that_grows_when_it_is_written_again_has_its_letter(sessions: Sessions) -> None:
    """Its producer may have written it more briefly: the limit of a message is no limit of a letter."""

    async def fail(_session: AsyncSession, _payload: Work) -> Answer:
        raise LookupError

    await _outcome(sessions, _spec(fail), text="\x01" * (MAX_BYTES // 6))  # one byte each, and six when escaped

    assert await letters(sessions) == {"j1": "LookupError"}


async def test_a_job_without_its_letter_has_not_ended(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever prevents the letter, also what nobody has thought of."""

    async def fail(_session: AsyncSession, _payload: Work) -> Answer:
        raise LookupError

    async def break_off(*_args: object, **_options: object) -> bool:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(letters_together, dead_letters.bury.__name__, break_off)
    monkeypatch.setattr(letters_together, dead_letters.bury_together.__name__, break_off)
    outcome = await _outcome(sessions, _spec(fail))

    assert (type(outcome), await letters(sessions)) == (RetryLater, {})


async def test_a_commit_that_is_under_way_decides_before_the_letter(sessions: Sessions) -> None:
    """Its client has given up, and the server commits later: the job is done, and must not be told dead."""
    other = Dispatcher(sessions)
    locked, ended = asyncio.Event(), asyncio.Event()

    async def commit_slowly() -> None:
        async with sessions.begin() as session:
            await session.execute(
                text(
                    "INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt) "
                    "VALUES ('j1', 'work', sha256('{}'), '{\"value\": 1}', 1)"
                )
            )
            locked.set()
            await ended.wait()
            await asyncio.sleep(0.2)

    async def fail(_session: AsyncSession, _payload: Work) -> Answer:
        await locked.wait()
        raise LookupError

    commit = asyncio.create_task(commit_slowly())
    run = asyncio.create_task(other.run(_spec(fail), Delivery("j1", 1, (), {})))
    await locked.wait()
    ended.set()

    assert (await run, await letters(sessions)) == ({"value": 1}, {})
    await commit


_DEEP: Any = []
for _ in range(230):
    _DEEP = [_DEEP]

_UNANSWERABLE = {
    "more than a message may have": ({"value": "x" * (MAX_BYTES - 1000)}, "bytes, more than the"),
    "no number": ({"number": float("nan")}, "field number is infinite or NaN"),
    "infinite": ({"number": [1.0, float("-inf")]}, "infinite"),
    "a zero byte": ({"value": {"deep": ["a\0b"]}}, r"field value has the character U\+0000"),
    "half a character": ({"value": "\ud800"}, "field value has half of a surrogate pair"),
    "a number that nobody reads": ({"value": [10**4300]}, "integer of more than 4,300 digits"),
    "more than a message may have, from its receipt": ({"value": [1e300] * 4000}, "large floats are .* bytes"),
    "what comes back as another type": ({"value": (1, 2)}, r"producers of \w+ would not get .* in Answer\.value"),
    "too deep": ({"value": _DEEP}, "field value has more than 198 lists"),
}


@pytest.mark.parametrize(("fields", "reason"), _UNANSWERABLE.values(), ids=_UNANSWERABLE)
async def test_what_cannot_be_answered_is_not_done(sessions: Sessions, fields: dict[str, Any], reason: str) -> None:
    """A result is written and measured before the commit: every caller would be told a failure of what was done."""

    async def store(session: AsyncSession, _payload: Work) -> Answer:
        await insert_user(session, "Jane")
        return Answer(**fields)

    outcome = await _outcome(sessions, _spec(store, max_attempts=5))

    with pytest.raises(WrongResultError, match=reason):
        raise outcome  # type: ignore[misc] # it is an error
    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert (users, await letters(sessions)) == (0, {"j1": "WrongResultError"})


@pytest.mark.parametrize(
    "value", ["x" * (MAX_BYTES - 5000), "NaN", "a\\u0000b", [[]] * 200, None, 10**4300 - 1, [1e300, "1" * 5000, True]]
)
async def test_what_only_looks_so_is_answered(sessions: Sessions, value: object) -> None:
    r"""The words NaN and \u0000 in a text, and many lists beside each other."""

    async def answer(_session: AsyncSession, _payload: Work) -> Answer:
        return Answer(value=value)

    assert await _outcome(sessions, _spec(answer)) == {"value": value, "number": 0.0}


Build = Callable[..., Awaitable[Worker]]


class Fussy(Payload[Answer]):
    """A job whose validator raises what no validator should."""

    job_name: ClassVar[str] = "fussy"
    text: str

    @field_validator("text")
    @classmethod
    def _fail(cls, value: str) -> str:
        raise SystemExit(3) if value == "exit" else LookupError


@pytest.fixture
def build_recording(build: BuildWorker, sessions: Sessions) -> Build:
    """Return a function that builds a worker of a registry, which keeps records as ours does."""

    async def build_it(registry: Registry = REGISTRY, **arguments: object) -> Worker:
        return await build_recording_worker(build, registry, sessions, allow_abort_jobs=True, **arguments)

    return build_it


async def test_an_unanswerable_job_of_a_batch_harms_no_neighbour(
    sessions: Sessions, pool: ArqRedis, build_recording: Build
) -> None:
    """The batch is rolled back, and its jobs run apart: one ends as a dead letter, the other as it should."""

    async def answer(session: AsyncSession, payload: Work) -> Answer:
        await insert_user(session, payload.text)
        return Answer(number=float("nan") if payload.text == "bad" else 1.0)

    async def together(session: AsyncSession, payloads: Sequence[Work]) -> list[Answer]:
        return [await answer(session, payload) for payload in payloads]

    for name in ("bad", "good"):
        await pool.enqueue_job("work", text=name, _job_id=name)
    worker = await build_recording(Registry(JobSpec(Work, answer, batch=together)))
    await worker.async_run()

    async with sessions() as session:
        users = list(await session.scalars(text("SELECT name FROM users")))
    assert (users, await letters(sessions), await _receipts(sessions)) == (
        ["good"],
        {"bad": "WrongResultError"},
        {"good": {"value": None, "number": 1.0}},
    )


class Unwritable(Payload[Answer]):
    """A job whose payload can be read, and not be written again."""

    job_name: ClassVar[str] = "unwritable"
    text: str

    @field_serializer("text")
    def _fail(self, value: str) -> str:
        raise LookupError(value)


async def test_a_payload_that_cannot_be_written_again_has_its_letter(sessions: Sessions) -> None:
    """Nobody can say which request it is, and so it can have no receipt: without a letter it would run for ever."""

    async def store(session: AsyncSession, _payload: Unwritable) -> Answer:
        await insert_user(session, "Jane")
        return Answer()

    spec: JobSpec[Any, Any] = JobSpec(Unwritable, store, max_attempts=1)
    outcome = await _outcome(sessions, spec, text="x")

    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert (users, await letters(sessions)) == (0, {"j1": type(outcome).__name__})


async def _queue(redis: Redis, job_id: str, message: bytes) -> None:
    await redis.set(f"arq:job:{job_id}", message)
    await redis.zadd("arq:queue", {job_id: now_ms() - 100})


def _message(name: str = "create_user", **fields: object) -> bytes:
    return encode({"t": None, "f": name, "a": [], "k": {"name": "Jane"}, "et": now_ms()} | fields)


_UNREADABLE = {
    "like a result": (_message("no_such", s=True), False, "unknown_job"),
    "like a result of ours": (_message("record_abort", s=True, a=["create_user", [], {}]), False, "unknown_job"),
    "like a refusal": (_message("refuse_message", s=True, a=["x", "y", "z"]), False, "unknown_job"),
    "invalid and aborted": (_message(k={"nme": "Jane"}), True, "invalid_payload"),
    "malformed and aborted": (b"garbage", True, "malformed_message"),
}


@pytest.mark.parametrize(("message", "is_aborted", "reason"), _UNREADABLE.values(), ids=_UNREADABLE)
async def test_a_message_that_cannot_run_has_a_letter(  # noqa: PLR0913 - fixtures and parameters
    sessions: Sessions, redis: Redis, build_recording: Build, message: bytes, reason: str, *, is_aborted: bool
) -> None:
    """Also if it looks like a result, and if somebody has aborted it."""
    await _queue(redis, "j1", message)
    if is_aborted:
        await redis.zadd("arq:abort", {"j1": now_ms()})

    await (await build_recording()).async_run()

    assert (await letters(sessions), await _receipts(sessions)) == ({"j1": reason}, {})


async def test_a_reader_that_fails_leaves_a_letter(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with a message, its bytes are kept."""

    def read(_data: bytes) -> Message:
        raise RecursionError

    monkeypatch.setattr(registry_work, "read_message", read)
    await _queue(redis, "j1", _message())

    await (await build_recording()).async_run()

    assert await letters(sessions) == {"j1": "malformed_message"}


async def test_many_aborts_are_recorded_together(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each for itself, 10,000 aborted jobs would delay all others by many seconds. Ended jobs keep their ends."""
    monkeypatch.delattr(Record, "conclude")
    await _queue(redis, "ended", _message(k={"name": "Jane"}))
    await (await build_recording()).async_run()
    await redis.delete("arq:result:ended")
    for job_id in ("ended", "j1", "j2", "j3"):
        await _queue(redis, job_id, _message(k={"name": "Jane"}))
        await redis.zadd("arq:abort", {job_id: now_ms()})

    await (await build_recording()).async_run()

    found = await _receipts(sessions)
    assert {key: answer.get("type") for key, answer in found.items()} == {
        "ended": None, "j1": "aborted", "j2": "aborted", "j3": "aborted",
    }  # fmt: skip
    assert await redis.exists("arq:result:ended", "arq:result:j1", "arq:result:j2", "arq:result:j3") == 4


async def test_many_that_expired_are_recorded_together_whatever_their_handler(
    sessions: Sessions, redis: Redis, build: BuildWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is to spare a worker the work of an outage would take twice as long as that work."""
    monkeypatch.delattr(Record, "conclude")
    ran: list[str] = []

    async def note(_session: AsyncSession, payload: Work) -> Answer:
        ran.append(payload.text)
        return Answer()

    for job_id, expires_ms in (("j1", 1), ("j2", 1), ("later", now_ms() + 60_000), ("never", None)):
        expiry = {} if expires_ms is None else {"xt": expires_ms}
        await _queue(redis, job_id, _message("work", k={"text": job_id}, **expiry))

    await (await build_recording_worker(build, Registry(_spec(note)), sessions)).async_run()

    found = await _receipts(sessions)
    assert {key: answer.get("type") for key, answer in found.items()} == {
        "j1": "expired", "j2": "expired", "later": None, "never": None,
    }  # fmt: skip
    assert sorted(ran) == ["later", "never"]


async def test_an_abort_that_cannot_be_recorded_is_tried_again(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job neither runs nor ends without its record."""
    failures = iter([ConnectionRefusedError(), None])
    conclude = Record.conclude

    async def conclude_later(*args: Any) -> Any:  # noqa: ANN401 - as it is
        if error := next(failures):
            raise error
        return await conclude(*args)

    monkeypatch.setattr(Record, "conclude", conclude_later)
    await _queue(redis, "j1", _message())
    await redis.zadd("arq:abort", {"j1": now_ms()})

    await (await build_recording()).async_run()

    found = await _receipts(sessions)
    assert ({key: answer["type"] for key, answer in found.items()}, next(failures, None)) == ({"j1": "aborted"}, None)


async def test_a_run_that_breaks_off_is_another_attempt(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours, outside of the job's function, is no end of the job."""
    run, begun = RegistryJob.run, []

    async def break_off_once(job: RegistryJob) -> Outcome:
        begun.append(job.claim.job_id)
        if len(begun) == 1:
            raise KeyError("a fault of ours")
        return await run(job)

    monkeypatch.setattr(RegistryJob, "run", break_off_once)
    await _queue(redis, "j1", _message())

    await (await build_recording()).async_run()

    assert (begun, list(await _receipts(sessions))) == (["j1", "j1"], ["j1"])


async def test_a_promised_job_whose_message_is_lost_is_not_told_failed(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still owed: the relay gives it again, and then it runs."""
    monkeypatch.setattr(refusals, "UNTIL_SENT_AGAIN", timedelta(milliseconds=50))
    async with sessions.begin() as session:
        await enqueue_in(session, CreateUser(name="Jane"), key="j1")
    await redis.zadd("arq:queue", {"j1": now_ms() - 100})
    running = await run_in_background(await build_recording(burst=False))
    await wait_until_async(lambda: _has_score_above(redis, now_ms() - 50), 10)

    await redis.set("arq:job:j1", _message())
    await wait_until_async(lambda: _exists(redis, "arq:result:j1"), 10)

    await stop(running)
    found = await _receipts(sessions)
    assert ({key: answer["name"] for key, answer in found.items()}, await letters(sessions)) == ({"j1": "Jane"}, {})


async def _has_score_above(redis: Redis, least: float) -> bool:
    score = await redis.zscore("arq:queue", "j1")
    return score is not None and score > least


async def _exists(redis: Redis, key: str) -> bool:
    return bool(await redis.exists(key))


async def test_a_job_that_has_ended_answers_so_though_its_message_is_lost(
    sessions: Sessions, redis: Redis, build_recording: Build
) -> None:
    """From its receipt or its letter, which say how it ended: not that a message is missing."""
    done = await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("done", 1, (), {"name": "Jane"}))
    with pytest.raises(InvalidPayloadError):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("dead", 1, (), {"nme": "Jane"}))
    await redis.zadd("arq:queue", {"done": now_ms() - 100, "dead": now_ms() - 100})

    await (await build_recording()).async_run()

    results = [decode(await redis.get(f"arq:result:{job_id}")) for job_id in ("done", "dead")]
    assert (results[0]["r"], type(results[1]["r"])) == (done, InvalidPayloadError)


async def test_an_abort_that_comes_too_late_hits_no_later_job(
    sessions: Sessions, redis: Redis, build_recording: Build
) -> None:
    """The worker forgets it with the job's end: or a later job of this id, cancelled by a deploy, would be aborted."""
    worker = await build_recording(burst=False)
    running = await run_in_background(worker)
    await _queue(redis, "j1", _message())
    await wait_until_async(lambda: _exists(redis, "arq:result:j1"), 10)
    assert worker.engine is not None

    worker.engine.runs.running.abort({b"j1"})
    await redis.delete("arq:result:j1")
    await _queue(redis, "j1", _message())
    await wait_until_async(lambda: _exists(redis, "arq:result:j1"), 10)

    await stop(running)
    result = decode(await redis.get("arq:result:j1"))
    assert (result["s"], list(await _receipts(sessions))) == (True, ["j1"])


@pytest.mark.parametrize("word", [Retry(defer=0.01), RetryJob()], ids=["Retry", "RetryJob"])
async def test_arqs_word_for_another_try_is_a_failure_as_any_other(
    sessions: Sessions, redis: Redis, build_recording: Build, word: Exception
) -> None:
    """A handler that comes from arq may raise it: its attempts are counted, and a dead job does not run on."""
    runs = []

    async def ask_for_more(_session: AsyncSession, _payload: Work) -> Answer:
        runs.append(1)
        if len(runs) > 3:
            return Answer()
        raise word

    await _queue(redis, "j1", _message("work", k={}))
    await (await build_recording(Registry(JobSpec(Work, ask_for_more, max_attempts=2)))).async_run()

    told = decode(await redis.get("arq:result:j1"))
    assert (len(runs), await letters(sessions), told["r"].code) == (2, {"j1": type(word).__name__}, type(word).__name__)
    assert told["h"] == payload_tag(Work())


async def test_one_refusal_for_many_jobs_answers_each(redis: Redis, build_recording: Build) -> None:
    """A handler may keep it in a constant: who reads it must not be told that his key was another request's."""
    refusal = JobFailedError("not today", code="closed")

    async def refuse(_session: AsyncSession, _payload: Work) -> Answer:
        raise refusal

    async def refuse_all(_session: AsyncSession, payloads: Sequence[Work]) -> list[Answer | JobFailedError]:
        return [refusal for _ in payloads]

    names = ("one", "two", "three")
    for name in names:
        await _queue(redis, name, _message("work", k={"text": name}))
    await (await build_recording(Registry(JobSpec(Work, refuse, batch=refuse_all)))).async_run()

    told = [decode(await redis.get(f"arq:result:{name}")) for name in names]
    assert [(answer["r"].code, answer["h"]) for answer in told] == [
        ("closed", payload_tag(Work(text=name))) for name in names
    ]


@pytest.mark.parametrize(("value", "reason"), [("exit", "HandlerEscapeError"), ("fail", "LookupError")])
async def test_an_aborted_job_whose_validator_fails_ends_on_record(
    sessions: Sessions, redis: Redis, build_recording: Build, value: str, reason: str
) -> None:
    """As it would without the abort, after as many attempts; and the worker lives."""
    await _queue(redis, "j1", _message("fussy", k={"text": value}))
    await redis.zadd("arq:abort", {"j1": now_ms()})

    async def answer(_session: AsyncSession, _payload: Fussy) -> Answer:
        return Answer()

    await (await build_recording(Registry(JobSpec(Fussy, answer, max_attempts=2)))).async_run()

    assert (await letters(sessions), await _receipts(sessions)) == ({"j1": reason}, {})


async def test_a_look_that_fails_does_not_end_a_job_whose_message_is_lost(
    sessions: Sessions, redis: Redis, build_recording: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database does not tell how it has ended: so it is asked again, and nothing is told meanwhile."""
    done = await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("done", 1, (), {"name": "Jane"}))
    looks = []

    async def look_in_vain_first(*args: Any) -> Any:  # noqa: ANN401 - as it is
        looks.append(1)
        if len(looks) == 1:
            raise ConnectionResetError
        return await receipt_by_job_id(*args)

    monkeypatch.setattr(record, receipt_by_job_id.__name__, look_in_vain_first)
    await redis.zadd("arq:queue", {"done": now_ms() - 100})

    await (await build_recording()).async_run()

    assert decode(await redis.get("arq:result:done"))["r"] == done
