"""Looks for one job in both servers, and names what was found. A server that cannot be asked is no failure."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from arqonce.connection.redis import explain
from arqonce.database.settings import DatabaseSettings
from arqonce.overview.job_facts import JobFacts, LedgerFacts, read_ledger_facts, read_redis_facts, read_texts
from arqonce.overview.looks import Looks
from arqonce.process.startup_errors import explain_database


class JobLookup:
    """Asks both servers for jobs."""

    def __init__(
        self, redis: Redis, url: str, queues: Sequence[str], kinds: Sequence[str], database: DatabaseSettings | None
    ) -> None:
        """Look in these queues and all that live workers serve, and for follow-ups of these kinds.

        ``url`` is that of Redis, for errors; without ``database`` PostgreSQL is not asked.
        """
        self._redis = redis
        self._url = url
        self._queues = queues
        self._kinds = kinds
        self._database = database

    async def find(self, job_id: str, looks: Looks, *, with_data: bool) -> JobFacts:
        """Return what both servers have of a job. Some ten round trips to PostgreSQL, and five to Redis."""
        facts = JobFacts(job_id=job_id)
        if self._database is not None:
            try:
                facts.ledger = await read_ledger_facts(looks, job_id, self._kinds, with_data=with_data)
            except (SQLAlchemyError, OSError) as error:
                facts.troubles.append(explain_database(error, self._database))
        try:
            await read_redis_facts(self._redis, facts, [*self._queues, *_queues_of(facts.ledger)], looks)
        except (RedisError, OSError) as error:
            facts.troubles.append(str(explain(error, self._url)))
        facts.not_seen = looks.not_seen
        read_texts(facts)
        return facts


def _queues_of(ledger: LedgerFacts | None) -> list[str]:
    if ledger is None:
        return []
    rows = [ledger.promise, ledger.letter, *ledger.attempts]
    return list(dict.fromkeys(row.queue for row in rows if row is not None and row.queue))


def name_of(facts: JobFacts) -> str | None:
    """Return the job's name, as far as a server has it."""
    names = [] if facts.ledger is None else sorted(facts.ledger.names)
    if facts.message is not None:
        return facts.message.name
    return names[0] if names else None if facts.answer is None else facts.answer.get("f")


def data_of(facts: JobFacts) -> dict[str, Any]:
    """Return the payload and the result, which may be a person's data."""
    message, ledger = facts.message, facts.ledger
    payload = None if message is None else message.kwargs | ({"": message.args} if message.args else {})
    result = ledger.result if ledger is not None else None
    if result is None and facts.answer is not None:
        result = facts.answer.get("r")
    return {"payload": payload, "result": result}
