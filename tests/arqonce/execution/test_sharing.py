"""Jobs that share a transaction: each has the outcome that it has by itself, and meets nothing of the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce import JobContext, JobFailedError, JobSpec, Payload, Result, RetryAfter, enqueue_in
from arqonce.database import pipelining
from arqonce.database.engine import build_engine
from arqonce.database.loans import LoanError
from arqonce.database.settings import DatabaseSettings
from arqonce.execution import sharing
from arqonce.execution.answers import Answer
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import code_of
from arqonce.work import Again
from chaos.careless import HABITS, Careless, careless
from db.tables import User
from db.users import insert_user

Sessions = async_sessionmaker[AsyncSession]
Body = Callable[[AsyncSession, JobContext], Awaitable[object]]


class Told(Result):
    """What the handler has found."""

    told: str = ""


class Share(Payload[Told]):
    """A job of these tests: its body is found by this name."""

    job_name: ClassVar[str] = "share"
    what: str


class NoSuchUserError(JobFailedError):
    """A refusal."""

    code = "no_such_user"


class Sharers:
    """Jobs that share transactions, on one connection."""

    def __init__(self, engine: AsyncEngine, **bodies: Body) -> None:
        async def handle(session: AsyncSession, payload: Share, job: JobContext) -> Told:
            return Told(told=str(await bodies[payload.what](session, job)))

        self.spec = JobSpec(Share, handle, shares_transaction=True)
        self.dispatcher = Dispatcher(async_sessionmaker(engine, expire_on_commit=False))
        self.dispatcher.is_cancelled = lambda: False  # as a worker knows that cancels no job

    async def share(self, *names: str, spec: Any = None) -> list[object]:  # noqa: ANN401 - any job
        """Run them together; return what they have told, their refusals, or how they are to run again."""
        deliveries = [Delivery(f"{name}-{at}", 1, (), {"what": name}) for at, name in enumerate(names)]
        with capture_logs():
            outcomes: list[Any] = await run_batch(self.dispatcher, spec or self.spec, deliveries)
        return [outcome if isinstance(outcome, RetryLater) else _told(outcome) for outcome in outcomes]

    async def alone(self, name: str, at: int = 0) -> object:
        """Run one by itself."""
        with capture_logs():
            return (await self.dispatcher.run(self.spec, Delivery(f"{name}-{at}", 1, (), {"what": name})))["told"]


def _told(outcome: Any) -> object:  # noqa: ANN401 - an outcome
    if not isinstance(outcome, Answer):
        return outcome
    return outcome.value["told"] if isinstance(outcome.value, dict) else code_of(outcome.value)


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be patient: what is tested here is not speed."""
    monkeypatch.setattr(sharing, "TOGETHER", timedelta(seconds=10))
    monkeypatch.setattr(sharing, "_PATIENCE", timedelta(seconds=2))


@pytest.fixture
async def engine(database: DatabaseSettings, sessions: Sessions) -> AsyncIterator[AsyncEngine]:
    """Yield an engine of one connection."""
    assert sessions is not None  # it removes the users
    engine = build_engine(database, pool_size=1)
    yield engine
    await engine.dispose()


async def _store(session: AsyncSession, job: JobContext) -> str:
    await insert_user(session, job.id)
    return job.id


async def _counts(sessions: Sessions) -> tuple[int, ...]:
    """Count users, receipts, and the transactions that have written the users."""
    query = """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM arqonce.receipts),
        (SELECT count(DISTINCT xmin::text) FROM users)"""
    async with sessions() as session:
        return tuple((await session.execute(text(query))).one())


async def test_they_share_one_transaction_and_each_has_its_own_answer_and_receipt(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """The session of one knows nothing of another: no object, no listener, not even what it has not flushed."""
    found: list[Any] = []

    async def add(session: AsyncSession, job: JobContext) -> str:
        found.append((session, len(session.identity_map), session.info))
        session.info["of"] = job.id
        event.listen(session.sync_session, "after_flush", lambda *_: found.append("heard"))
        session.add(User(name=job.id))
        return job.id

    told = await Sharers(engine, add=add).share("add", "add", "add")

    assert told == ["add-0", "add-1", "add-2"]
    assert await _counts(sessions) == (3, 3, 1)
    seen = [one for one in found if one != "heard"]
    assert found.count("heard") == len({id(session) for session, *_ in seen}) == 3
    assert [size for _, size, _ in seen] == [0, 0, 0]


async def _raise(session: AsyncSession, job: JobContext) -> None:
    await _store(session, job)
    raise ZeroDivisionError


async def _refuse_late(session: AsyncSession, job: JobContext) -> None:
    await _store(session, job)
    raise NoSuchUserError("nobody")


async def _postpone(_session: AsyncSession, _job: JobContext) -> None:
    raise RetryAfter(timedelta(seconds=5))


async def _take_long(_session: AsyncSession, _job: JobContext) -> None:
    await asyncio.sleep(5)


async def _swallow(session: AsyncSession, _job: JobContext) -> None:
    for _ in range(2):
        try:
            session.add(User(name="Twin", email="twin@example.org"))
            await session.flush()
        except IntegrityError:
            return


async def _cancel_itself(session: AsyncSession, _job: JobContext) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await session.execute(text("SELECT 1"))


async def _leave_a_savepoint(session: AsyncSession, job: JobContext) -> None:
    await session.begin_nested()
    await _store(session, job)


async def _set(session: AsyncSession, _job: JobContext) -> None:
    await session.execute(text("SET LOCAL timezone = 'Asia/Kolkata'"))


async def _call(session: AsyncSession, _job: JobContext) -> None:
    await session.execute(text("SELECT set_config('app.tenant', 'a', true)"))


async def _set_many(session: AsyncSession, _job: JobContext) -> None:
    connection = await session.connection()
    await connection.execute(text("SELECT set_config('app.tenant', :to, true)"), [{"to": "a"}, {"to": "b"}])


async def _wait_for_the_commit(session: AsyncSession, job: JobContext) -> None:
    await _store(session, job)
    event.listen(session.sync_session, "after_commit", lambda _: None)


async def _listen_to_the_connection(session: AsyncSession, _job: JobContext) -> None:
    connection = await session.connection()
    event.listen(connection.sync_connection, "before_cursor_execute", lambda *_: None)


async def _roll_back(session: AsyncSession, job: JobContext) -> None:
    await _store(session, job)
    await session.rollback()


async def _use_the_driver(session: AsyncSession, _job: JobContext) -> None:
    raw: Any = await (await session.connection()).get_raw_connection()
    await raw.driver_connection.execute("SELECT 1")


async def _leave_a_connection(session: AsyncSession, _job: JobContext) -> None:
    _left.append(second := AsyncSession(session.bind))
    await second.execute(text("SELECT 1"))


_left: list[object] = []

GUILTY: list[Body] = [
    _raise, _refuse_late, _postpone, _take_long, _swallow, _cancel_itself, _leave_a_savepoint, _set, _call, _set_many,
    _wait_for_the_commit, _listen_to_the_connection, _roll_back, _use_the_driver, _leave_a_connection,
]  # fmt: skip


@pytest.mark.parametrize("body", GUILTY, ids=lambda body: body.__name__.strip("_"))
async def test_one_that_cannot_share_runs_alone_and_the_others_without_it(
    engine: AsyncEngine, sessions: Sessions, body: Body
) -> None:
    """It is known which it is, and nothing was stored."""
    told = await Sharers(engine, store=_store, guilty=body).share("store", "guilty", "store")

    assert told == [Again.APART, Again.ALONE, Again.APART]
    assert await _counts(sessions) == (0, 0, 0)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await Sharers(engine, store=_store).share("store", "store") == ["store-0", "store-1"]


async def test_a_refusal_before_anything_is_written_is_an_answer(engine: AsyncEngine, sessions: Sessions) -> None:
    """Most refusals follow a look: they cost the others nothing."""

    async def refuse(session: AsyncSession, _job: JobContext) -> None:
        if await session.scalar(text("SELECT count(*) FROM users WHERE name = 'Nobody'")) == 0:
            raise NoSuchUserError("nobody")

    told = await Sharers(engine, store=_store, refuse=refuse).share("store", "refuse", "store")

    assert told == ["store-0", "no_such_user", "store-2"]
    assert await _counts(sessions) == (2, 3, 1)


_STATE = """
    SELECT (SELECT jsonb_object_agg(name, setting) FROM pg_settings
            WHERE name !~ '^(lock_timeout$|transaction_|plpgsql)')::text,
        current_user::text, session_user::text, coalesce(current_setting('app.tenant', true), ''),
        (SELECT count(*) FROM pg_cursors WHERE is_holdable),
        (SELECT count(*) FROM pg_prepared_statements WHERE from_sql),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), 7::int8::text
"""


@pytest.mark.parametrize("what", HABITS)
async def test_whatever_one_does_the_next_meets_nothing_of_it(
    engine: AsyncEngine, sessions: Sessions, what: str
) -> None:
    """A careless job among others: these find the same as before, and are stored once, whoever they share with."""
    states = []

    async def look(session: AsyncSession, payload: Careless) -> Result:
        if payload.what != "look":
            return await careless(session, payload)
        states.append(tuple((await session.execute(text(_STATE))).one()))
        await insert_user(session, payload.name)
        return Result()

    spec = JobSpec(Careless, look, shares_transaction=True)
    sharers = Sharers(engine)
    kinds = ["look", what, "look", "look"]
    deliveries = [Delivery(str(at), 1, (), {"what": kind, "name": f"{at}"}) for at, kind in enumerate(kinds)]
    with capture_logs():
        outcomes = await run_batch(sharers.dispatcher, spec, deliveries)
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if not isinstance(outcome, Answer):
                try:
                    await sharers.dispatcher.run(spec, delivery)
                except Exception:  # noqa: BLE001 - the careless one may fail, others may not: they are counted
                    assert delivery.job_id == "1"

    async with sessions() as session:
        found = await session.execute(text("SELECT name, count(*) FROM users WHERE name <> '1' GROUP BY name"))
    assert dict(found.all()) == {"0": 1, "2": 1, "3": 1}
    assert len(set(states)) == 1


async def test_settings_of_triggers_do_not_reach_the_next_job(engine: AsyncEngine, sessions: Sessions) -> None:
    """No statement of the handlers shows them; they are reset with the next job's first statement."""
    body = "BEGIN PERFORM set_config('app.tenant', NEW.name, true); RETURN NEW; END"
    async with sessions.begin() as session:
        await session.execute(text(f"CREATE FUNCTION tenant() RETURNS trigger LANGUAGE plpgsql AS $body${body}$body$"))
        await session.execute(
            text("CREATE TRIGGER tenant AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION tenant()")
        )

    async def look(session: AsyncSession, job: JobContext) -> object:
        before = await session.scalar(text("SELECT coalesce(current_setting('app.tenant', true), '')"))
        await _store(session, job)
        return before, await session.scalar(text("SELECT current_setting('app.tenant', true)"))

    try:
        told = await Sharers(engine, look=look).share("look", "look")
    finally:
        async with sessions.begin() as session:
            await session.execute(text("DROP FUNCTION tenant CASCADE"))

    assert told == ["('', 'look-0')", "('', 'look-1')"]


async def test_the_limit_on_locks_holds_also_behind_a_job_that_executes_nothing(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is sent with the first statement of the transaction, whichever turn that is in."""
    monkeypatch.setattr(pipelining, "SUSPECT_FUNCTIONS", "SELECT false, false")  # else each turn sends it again

    async def idle(_session: AsyncSession, _job: JobContext) -> object:
        return "nothing"

    async def look(session: AsyncSession, _job: JobContext) -> object:
        return await session.scalar(text("SELECT current_setting('lock_timeout')"))

    sharers = Sharers(engine, idle=idle, look=look)
    await sharers.share("look")  # the connection learns it with its first statement

    told = await sharers.share("idle", "look", "idle", "look")

    assert told == ["nothing", "250ms", "nothing", "250ms"]


@pytest.mark.parametrize("with_connection", [True, False])
async def test_a_task_that_one_leaves_behind_cannot_touch_the_next(
    engine: AsyncEngine, sessions: Sessions, *, with_connection: bool
) -> None:
    """Neither by its session nor by the connection, which is the next one's, too."""
    tasks, is_next = [], asyncio.Event()

    async def leave(session: AsyncSession, job: JobContext) -> str:
        connection: Any = await session.connection() if with_connection else session

        async def go_on() -> None:
            await is_next.wait()
            await connection.execute(text("INSERT INTO users (name) VALUES ('Ghost')"))

        tasks.append(asyncio.create_task(go_on()))
        return await _store(session, job)

    async def follow(session: AsyncSession, job: JobContext) -> str:
        is_next.set()
        await asyncio.wait(tasks)
        return await _store(session, job)

    told = await Sharers(engine, leave=leave, follow=follow).share("leave", "follow")

    assert told == ["leave-0", "follow-1"]
    assert isinstance(tasks[0].exception(), LoanError)
    assert await _counts(sessions) == (2, 2, 1)


async def test_a_follow_up_belongs_to_the_job_that_promises_it(engine: AsyncEngine, sessions: Sessions) -> None:
    """Its id is the one that it has when the job runs alone."""

    async def promise(session: AsyncSession, job: JobContext) -> str:
        await _store(session, job)
        return (await enqueue_in(session, Share(what="store"))).job_id

    sharers = Sharers(engine, promise=promise)
    together = await sharers.share("promise", "promise")
    async with sessions.begin() as session:
        await session.execute(text("TRUNCATE users, arqonce.receipts, arqonce.outbox"))
    alone = [await sharers.alone("promise", at) for at in range(2)]

    assert together == alone
    assert len(set(together)) == 2


async def test_what_readers_share_leaves_nothing_and_a_writer_among_them_runs_alone(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    """Where it fails, as it always does."""

    async def read(session: AsyncSession, _job: JobContext) -> object:
        return await session.scalar(text("SELECT count(*) FROM users"))

    sharers = Sharers(engine, read=read, store=_store)
    reading = JobSpec(Share, sharers.spec.stores, reads_only=True, shares_transaction=True)

    assert await sharers.share("read", "read", spec=reading) == ["0", "0"]
    assert await sharers.share("read", "store", spec=reading) == [Again.APART, Again.ALONE]
    assert await _counts(sessions) == (0, 0, 0)


async def test_those_whose_turn_does_not_come_in_time_run_later(
    engine: AsyncEngine, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done is stored without them."""
    monkeypatch.setattr(sharing, "TOGETHER", timedelta(milliseconds=50))

    async def dawdle(session: AsyncSession, job: JobContext) -> str:
        await asyncio.sleep(0.06)
        return await _store(session, job)

    told = await Sharers(engine, dawdle=dawdle).share("dawdle", "dawdle", "dawdle")

    assert told == ["dawdle-0", Again.LATER, Again.LATER]
    assert await _counts(sessions) == (1, 1, 1)


async def test_one_that_has_ended_before_makes_the_others_run_apart(engine: AsyncEngine, sessions: Sessions) -> None:
    """A duplicate shows itself only at the commit; its receipt answers."""
    sharers = Sharers(engine, store=_store)
    await sharers.alone("store", 1)

    assert await sharers.share("store", "store") == [Again.APART, "store-1"]
    assert await _counts(sessions) == (1, 1, 1)


async def test_in_an_outage_all_are_tried_later(engine: AsyncEngine) -> None:
    """Nobody is guilty then, and no attempt counts."""
    sharers = Sharers(engine, store=_store)

    async def never(*_: object, **__: object) -> bool:
        return True

    sharers.dispatcher.gate.explains = never  # type: ignore[method-assign]

    outcomes = await sharers.share("store", "missing")

    assert all(isinstance(outcome, RetryLater) for outcome in outcomes)
