"""Reads the snapshot that ``status`` shows, and watches it. Prints nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from arqonce.connection.redis import build_redis, explain, explained
from arqonce.database.engine import open_database
from arqonce.database.schema import SchemaError, require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.ledger.outbox import queues_behind
from arqonce.ledger.schema import ledger_of
from arqonce.overview.looks import Looks, Sessions
from arqonce.overview.snapshot import LedgerFigures, QueueFigures, read_ledger, read_queues
from arqonce.process.startup_errors import explain_database
from arqonce.relay.unserved import BEHIND
from arqonce.settings.queue import QueueSettings

_LOOK_LIMIT = timedelta(seconds=3)
"""Longest wait for PostgreSQL. Only problems with it are reported."""


@dataclass(kw_only=True)
class Ledger:
    """What PostgreSQL says, or why it could not be asked."""

    figures: LedgerFigures | None = None
    """``None`` if it could not be asked, or if there is no DATABASE_URL."""

    behind: Sequence[str] = ()
    """Queues whose promised jobs no relay has dispatched."""

    trouble: str | None = None
    """What prevents jobs from running, with the cure."""

    is_behind_code: bool = False
    """Whether tables are missing."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What both servers say."""

    queues: QueueFigures
    ledger: Ledger
    redis_trouble: str | None = None
    """Why Redis, which answers, takes no writes, with the cure."""

    not_seen: Sequence[str] = field(default_factory=list)


class StatusReader:
    """Asks both servers over connections that stay open."""

    def __init__(self, redis: Redis, url: str, queues: Sequence[str], database: DatabaseSettings | None) -> None:
        """Ask Redis for these queues; PostgreSQL only if there are settings and a session of ``open_status``."""
        self._redis = redis
        self._url = url
        self._queues = queues
        self._database = database
        self.sessions: Sessions | None = None

    async def read(self) -> Status:
        """Ask both.

        Raises:
            QueueUnavailableError: Redis cannot be asked; the text names the cure.
        """
        looks = Looks(self.sessions)
        ledger = await read_ledger_state(looks, self._database)
        with explained(self._url):
            queues = await read_queues(self._redis, self._queues, ledger.behind, looks)
        trouble = None if queues.refusal is None else str(explain(queues.refusal, self._url))
        return Status(queues=queues, ledger=ledger, redis_trouble=trouble, not_seen=looks.not_seen)


async def read_ledger_state(looks: Looks, database: DatabaseSettings | None, *, is_tested: bool = False) -> Ledger:
    """Ask PostgreSQL, or say why it could not be asked.

    Does not ask whether it can be written to and has all tables if that ``is_tested``: some 4 ms.
    """
    sessions = looks.sessions
    if database is None or sessions is None:
        return Ledger()
    ledger = Ledger()
    try:
        async with asyncio.timeout(_LOOK_LIMIT.total_seconds()):
            if not is_tested:
                async with sessions() as session:
                    await require_writable(session)
                await require_current_schemas(sessions, [ledger_of(database)])
            async with sessions() as session:
                ledger.behind = await queues_behind(session, BEHIND)
            ledger.figures = await read_ledger(looks)
    except SchemaError as error:
        ledger.trouble, ledger.is_behind_code = str(error), True
    except (SQLAlchemyError, OSError) as error:
        ledger.trouble = explain_database(error, database)
    return ledger


@asynccontextmanager
async def open_status(settings: QueueSettings, queues: Sequence[str]) -> AsyncIterator[StatusReader]:
    """Open what ``status`` asks: Redis, and PostgreSQL if DATABASE_URL is set.

    Raises:
        SettingsError: a setting DATABASE_* is wrong.
    """
    database = DatabaseSettings.load() if DatabaseSettings.given("url") else None
    url = settings.url.get_secret_value()
    async with build_redis(url, Redis, password=settings.plain_password) as redis:
        reader = StatusReader(redis, url, queues, database)
        if database is None:
            yield reader
            return
        async with open_database(database, pool_size=1) as sessions:
            reader.sessions = sessions
            yield reader
