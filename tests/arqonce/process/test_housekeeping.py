"""Receipts and dead letters do not grow for ever."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.environment import SettingsError
from arqonce.execution.dead_letters import write_letter
from arqonce.ledger.dead_jobs import insert_dead_letter
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.ledger.recorded import outwait_receipts
from arqonce.process.housekeeping import keep_house, sweep
from arqonce.rest import Rest
from arqonce.settings.worker import WorkerSettings

Sessions = async_sessionmaker[AsyncSession]
AGES = {
    "receipts": timedelta(days=30), "dead_jobs": timedelta(days=90), "attempts": timedelta(days=7),
    "redis_losses": timedelta(days=7),
}  # fmt: skip

_FILL = """
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt, finished_at)
    SELECT 'r' || day, 'x', '', '{}', 1, now() - day * interval '1 hour' FROM generate_series(1, 3000) AS day;
    INSERT INTO arqonce.dead_jobs (job_id, job_name, message, reason, explanation, error, attempts, died_at)
    SELECT 'd' || day, 'x', '', '', '', '', 1, now() - day * interval '1 day' FROM generate_series(1, 100) AS day;
    INSERT INTO arqonce.attempts (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, counted)
    SELECT 'a' || day, 1, 'x', 'q', '', '', '', now(), now() - day * interval '1 day', true
        FROM generate_series(1, 10) AS day;
    INSERT INTO arqonce.redis_losses (epoch, noticed_at)
    SELECT day, now() - day * interval '1 day' FROM generate_series(1, 10) AS day;
"""


async def _fill(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        for statement in _FILL.split(";")[:4]:
            await session.execute(text(statement))


async def _counts(sessions: Sessions) -> tuple[int, int]:
    async with sessions() as session:
        receipts = await session.scalar(text("SELECT count(*) FROM arqonce.receipts"))
        dead = await session.scalar(text("SELECT count(*) FROM arqonce.dead_jobs"))
    return receipts or 0, dead or 0


async def test_only_what_is_too_old_goes(sessions: Sessions) -> None:
    """More than one step, each table by its own age; several workers at once remove each row once."""
    await _fill(sessions)

    removed = await asyncio.gather(*(sweep(sessions, AGES) for _ in range(3)))

    assert await _counts(sessions) == (30 * 24 - 1, 89)
    assert sum(one["receipts"] for one in removed) == 3000 - (30 * 24 - 1)
    assert sum(one["dead_jobs"] for one in removed) == 11
    assert [sum(one[table] for one in removed) for table in ("attempts", "redis_losses")] == [4, 4]


async def test_it_happens_in_the_background_until_the_end(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves no task behind."""
    monkeypatch.setattr("arqonce.process.housekeeping._INTERVAL", timedelta(milliseconds=1))
    await _fill(sessions)

    async with keep_house(sessions, AGES), asyncio.timeout(10):
        while (await _counts(sessions))[0] > 30 * 24:
            await asyncio.sleep(0.01)

    assert "housekeeping" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_worker_that_rests_leaves_it_to_others(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """And sweeps again after its rest."""
    monkeypatch.setattr("arqonce.process.housekeeping._INTERVAL", timedelta(milliseconds=1))
    await _fill(sessions)
    before, rest = await _counts(sessions), _Watched()
    rest.begin()

    async with keep_house(sessions, AGES, rest), asyncio.timeout(10):
        await rest.looked.wait()
        at_rest = await _counts(sessions)
        rest.end()
        while (await _counts(sessions))[0] > 30 * 24:
            await asyncio.sleep(0.01)

    assert at_rest == before


class _Watched(Rest):
    """One that knows when somebody has slept through it three times."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = asyncio.Event()
        self._looks = 0

    @property
    def is_on(self) -> bool:
        self._looks += 1
        if self._looks > 3:
            self.looked.set()
        return self._is_on

    @is_on.setter
    def is_on(self, value: bool) -> None:
        self._is_on = value


def test_receipts_outlast_every_redelivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter time would let a job take effect twice: it is refused."""
    monkeypatch.setenv("WORKER_KEEP_RECEIPTS", "7d")

    with pytest.raises(SettingsError, match="WORKER_KEEP_RECEIPTS: must be at least 8d"):
        WorkerSettings.load()


@pytest.mark.parametrize("table", ["receipts", "dead_jobs"])
async def test_a_letter_of_a_job_that_took_effect_goes_at_the_latest_with_its_receipt(
    sessions: Sessions, table: str
) -> None:
    """Until then all figures counted it, and no command found it. After that it could be retried: a second effect.

    A worker that had stood still commits while another one, which took over its job, records that it is dead.
    """
    letters = [
        write_letter(
            LookupError(), LookupError(), job_id=job_id, job_name="x", message=b"m", attempts=5, queue="q",
            request_hash=request,
        )
        for job_id, request in [("done", b"one"), ("anothers", b"other")]
    ]  # fmt: skip

    async def take_effect() -> None:
        async with sessions.begin() as session:
            receipts = [Receipt(job_id, "x", b"one", 5, {}) for job_id in ("done", "anothers")]
            await insert_receipts(session, "x", receipts)

    async with sessions.begin() as session:
        await outwait_receipts(session, ["done", "anothers"])
        late = asyncio.create_task(take_effect())
        await asyncio.sleep(0.2)  # it waits, and has seen no letter
        for letter in letters:
            assert await insert_dead_letter(session, letter)
    await late
    before = await _counts(sessions)

    await sweep(sessions, {table: AGES[table] * (table == "dead_jobs")})

    async with sessions() as session:
        left = list(await session.scalars(text("SELECT job_id FROM arqonce.dead_jobs")))
    assert (before, left) == ((2, 2), ["anothers"])
