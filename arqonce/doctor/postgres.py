"""Examines PostgreSQL: what a worker needs of it, and the state of the ledger's tables. Changes nothing."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import is_denied
from arqonce.database.limits import shorter_limits
from arqonce.database.schema import Schema, SchemaError, require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.doctor.finding import (
    Check,
    Finding,
    Verdict,
    compare_clocks,
    is_this_host,
    judge_certificate,
    judged,
    not_seen,
    well,
)
from arqonce.ledger.namespace import text_for
from arqonce.ledger.overview import MOST_QUEUES, MOST_READ, PROMISED_QUEUES, dead_by_kind
from arqonce.ledger.schema import ledger_of
from arqonce.process.startup_errors import explain_database

_NOT_ALLOWED = "this role may not look"

_STATEMENT_LIMIT = "3s"
"""Longest time of one look, so that a doctor is no burden on a server in trouble."""

_OVERDUE = timedelta(minutes=1)

_OFTEN = 5
"""Dispatches of one promise after which it is remarkable that the job has not ended."""

_OLD_TRANSACTION = timedelta(hours=1)

_MANY_DEAD_ROWS = 50_000

_NEEDED = {
    "receipts": ("SELECT", "INSERT", "DELETE"),
    "outbox": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "dead_jobs": ("SELECT", "INSERT", "UPDATE"),
    "schedules": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "schedule_releases": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "pauses": ("SELECT",),
}
"""What a worker does with the ledger's tables. A right on some columns counts."""

Ask = Callable[[AsyncSession], Awaitable[Finding | Sequence[Finding] | None]]


class Postgres:
    """The examination of one database."""

    def __init__(
        self,
        sessions: async_sessionmaker[AsyncSession],
        settings: DatabaseSettings,
        *,
        schemas: Sequence[Schema],
        longest: timedelta,
        connections: int,
    ) -> None:
        """Examine for jobs that last as long as the ``longest``, and for workers that need so many ``connections``."""
        self._sessions = sessions
        self._settings = settings
        self._schemas = (ledger_of(settings), *schemas)
        self._longest = longest
        self._connections = connections

    @property
    def checks(self) -> list[Check]:
        """The questions, each of one or two round trips. The first one fails if the server cannot be used at all."""
        asks: dict[str, Ask] = {
            "writes": self._writes,
            "migrations": self._migrations,
            "connections": self._pool,
            "limits of transactions": self._limits,
            "pooler": self._pooler,
            "clock": self._clock,
            "TLS": self._tls,
            "rights": self._rights,
            "oldest transaction": self._oldest_transaction,
            "dead rows": self._dead_rows,
            "promised jobs": self._promises,
            "dead letters": self._dead_letters,
        }
        return [Check(f"PostgreSQL: {name}", self._asking(f"PostgreSQL: {name}", ask)) for name, ask in asks.items()]

    def _asking(self, name: str, ask: Ask) -> Callable[[], Awaitable[Finding | Sequence[Finding] | None]]:
        async def in_session() -> Finding | Sequence[Finding] | None:
            try:
                async with self._sessions() as session:
                    await session.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_LIMIT}'"))
                    return await ask(session)
            except SchemaError as error:
                return Finding(name, Verdict.FAILURE, str(error), "apply the migrations with the command migrate")
            except DBAPIError as error:
                if is_denied(error) and ask != self._writes:
                    return not_seen(name, _NOT_ALLOWED, "ask with a role that may, such as pg_monitor's members")
                return self._unusable(name, error)
            except (SQLAlchemyError, OSError) as error:
                return self._unusable(name, error)

        return in_session

    def _unusable(self, name: str, error: Exception) -> Finding:
        told, _, cure = explain_database(error, self._settings).partition(": ")
        return Finding(name, Verdict.FAILURE, told, cure or "its log says why")

    async def _writes(self, session: AsyncSession) -> Finding:
        await require_writable(session)
        waiting = (await session.execute(_SYNCHRONOUS)).one()
        if waiting.commits:
            value = f"{waiting.commits} commits wait for a synchronous standby, for {waiting.seconds:.0f} s"
            cure = "start the standby that synchronous_standby_names requires, or require none: each job takes so long"
            return judged("PostgreSQL: writes", value, warning=cure)
        version = await session.scalar(text("SHOW server_version"))
        return well("PostgreSQL: writes", f"accepted by PostgreSQL {version} at {self._settings.location}")

    async def _migrations(self, _session: AsyncSession) -> Finding:
        await require_current_schemas(self._sessions, self._schemas)
        return well("PostgreSQL: migrations", "all applied: " + ", ".join(schema.name for schema in self._schemas))

    async def _pool(self, session: AsyncSession) -> Finding:
        """Compare what the workers may open with what the server and the role allow, if it is one that runs jobs."""
        found = (await session.execute(_CONNECTIONS)).one()
        free = found.most - found.reserved - found.others
        is_limited = found.role_limit >= 0 and not await self._missing_rights(session)
        limits = [free, *([found.role_limit] if is_limited else [])]
        of_role = f"; the role {found.role} has {found.role_limit}" if is_limited else ""
        value = (
            f"workers may open {self._connections}; the server has {found.most}, {found.reserved} of them reserved, "
            f"{found.others} used by others{of_role}"
        )
        cure = "lower WORKER_MAX_JOBS or the number of processes, or raise max_connections or the role's limit"
        return judged("PostgreSQL: connections", value, failure=cure if self._connections > min(limits) else None)

    async def _limits(self, session: AsyncSession) -> Finding:
        found = await shorter_limits(session, self._longest)
        shown = ", ".join(f"{name} {limit.total_seconds():g} s" for name, limit in found.items())
        value = f"the longest deadline is {self._longest.total_seconds():g} s; shorter: {shown or 'none'}"
        cure = "raise the limit for the worker's role, or lower the deadline"
        return judged("PostgreSQL: limits of transactions", value, warning=cure if found else None)

    async def _pooler(self, session: AsyncSession) -> Finding:
        """Look whether the process number that we were given at the start is the server's: a pooler gives its own."""
        driver = await _driver_of(session)
        told, real = driver.get_server_pid(), await session.scalar(text("SELECT pg_backend_pid()"))
        has_pooler = told != real
        value = "between us and the server" if has_pooler else "none"
        cure = None
        if has_pooler and not self._settings.pgbouncer:
            cure = "set DATABASE_PGBOUNCER=true if it is PgBouncer in transaction mode"
        return judged("PostgreSQL: pooler", value, warning=cure)

    async def _clock(self, session: AsyncSession) -> Finding:
        before = datetime.now(UTC)
        told = await session.scalar(text("SELECT clock_timestamp()"))
        return compare_clocks("PostgreSQL: clock", before, told, datetime.now(UTC))

    async def _tls(self, session: AsyncSession) -> Finding | None:
        found = (await session.execute(_TLS)).first()
        is_near = all(is_this_host(host.name) for host in self._settings.hosts)
        if found is None:
            return not_seen("PostgreSQL: TLS", "the server does not tell")
        if found.ssl:
            driver = await _driver_of(session)
            wrapped = driver._transport.get_extra_info("ssl_object")  # noqa: SLF001 - asyncpg has no public way
            return judge_certificate("PostgreSQL: TLS", wrapped and wrapped.getpeercert())
        risk = "add ?sslmode=verify-full to DATABASE_URL: passwords and data are readable on the way"
        cure = None if is_near else risk
        return judged("PostgreSQL: TLS", "none" + " (the server is on this host)" * is_near, warning=cure)

    async def _missing_rights(self, session: AsyncSession) -> list[str]:
        schema = self._settings.ledger_schema
        return [
            f"{right} on {schema}.{table}"
            for table, rights in _NEEDED.items()
            for right in rights
            if not await session.scalar(_MAY, {"schema": schema, "table": table, "right": right})
        ]

    async def _rights(self, session: AsyncSession) -> Finding:
        missing = await self._missing_rights(session)
        role = await session.scalar(text("SELECT current_user"))
        value = f"{role} may run jobs" if not missing else f"{role} lacks {', '.join(missing)}"
        cure = "a worker's role needs deploy/postgres/grants.sql; an operator's may well lack them"
        return judged("PostgreSQL: rights", value, warning=cure if missing else None)

    async def _oldest_transaction(self, session: AsyncSession) -> Finding:
        found = (await session.execute(_OLDEST)).one()
        if found.hidden:
            return not_seen("PostgreSQL: oldest transaction", _NOT_ALLOWED, "GRANT pg_read_all_stats TO this role")
        age = max(found.age or timedelta(0), timedelta(0))  # it may be our own, which is younger than this statement
        value = f"{age.total_seconds():.0f} s" + (f" (pid {found.pid}, {found.name or 'no name'})" if found.pid else "")
        cure = "end it with pg_terminate_backend(pid): until then no table can be vacuumed, and all get slower"
        return judged("PostgreSQL: oldest transaction", value, warning=cure if age > _OLD_TRANSACTION else None)

    async def _dead_rows(self, session: AsyncSession) -> Finding:
        rows = (await session.execute(_VACUUM, {"schema": self._settings.ledger_schema})).all()
        shown = ", ".join(f"{row.relname} {row.n_dead_tup} of {row.n_dead_tup + row.n_live_tup}" for row in rows)
        heavy = [row.relname for row in rows if row.n_dead_tup > max(_MANY_DEAD_ROWS, row.n_live_tup // 4)]
        cure = f"VACUUM {', '.join(heavy)}; look whether autovacuum is on, and what holds it up"
        return judged("PostgreSQL: dead rows", shown or "no figures yet", warning=cure if heavy else None)

    async def _promises(self, session: AsyncSession) -> list[Finding]:
        queues = (await session.execute(text_for(session, _OUTBOX), {"overdue": _OVERDUE, "often": _OFTEN})).all()
        if not queues:
            return [well("PostgreSQL: promised jobs", "none is owed")]
        findings = []
        if len(queues) > MOST_QUEUES:
            told = f"in more than {MOST_QUEUES} queues: others are not looked at"
            findings.append(well("PostgreSQL: promised jobs", told))
        return findings + [
            judged(
                f"PostgreSQL: promised jobs in {row.queue}",
                f"{_some(row.owed, row.most)} owed, {_some(row.late, row.most)} overdue for the relay, "
                f"{_some(row.again, row.most)} given more than {_OFTEN} times",
                warning=_why_owed(row.late, row.again),
            )
            for row in queues
        ]

    async def _dead_letters(self, session: AsyncSession) -> Finding:
        found = await dead_by_kind(session)
        total, lately = sum(one.letters for one in found), sum(one.last_hour for one in found)
        reasons = ", ".join(f"{one.name} {one.letters}" for one in found[:5])
        value = f"{_some(total, MOST_READ)}, {lately} in the last hour" + (f": {reasons}" if reasons else "")
        return judged("PostgreSQL: dead letters", value, warning="look at dead list" if lately else None)


async def _driver_of(session: AsyncSession) -> Any:  # noqa: ANN401 - asyncpg's, which has no types
    """Return the driver's connection."""
    return (await (await session.connection()).get_raw_connection()).driver_connection


def _why_owed(late: int, again: int) -> str | None:
    if late:
        return "start a worker or a relay with this queue in WORKER_QUEUE, or correct the name where jobs are promised"
    return "do workers of this queue run, and do its jobs end? See status and the log" if again else None


def _some(number: int, most: int) -> str:
    """Show a count, which ends at ``most``."""
    return f"{number} or more" if number >= most else str(number)


_SYNCHRONOUS = text("""
    SELECT count(*) AS commits, extract(epoch FROM max(clock_timestamp() - state_change)) AS seconds
    FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND clock_timestamp() - state_change > interval '2 seconds'
""")
_TLS = text("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
_CONNECTIONS = text("""
    SELECT current_setting('max_connections')::int AS most,
        current_setting('superuser_reserved_connections')::int
            + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved,
        (SELECT count(*) FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND usename IS DISTINCT FROM session_user) AS others,
        rolconnlimit AS role_limit, rolname AS role
    FROM pg_roles WHERE rolname = session_user
""")
_MAY = text("""
    SELECT coalesce(bool_or(CASE WHEN :right = 'DELETE' THEN has_table_privilege(pg_class.oid, :right)
        ELSE has_any_column_privilege(pg_class.oid, :right) END), true)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = :schema AND relname = :table
""")
"""Whether the role has a right on the table, or on some columns of it; a table that is missing is not its fault.
By number: a name needs rights on the schema."""

_OLDEST = text("""
    SELECT now() - xact_start AS age, pid, application_name AS name,
        (SELECT count(*) > 0 FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND query = '<insufficient privilege>') AS hidden
    FROM (SELECT NULL) AS always LEFT JOIN LATERAL (
        SELECT xact_start, pid, application_name FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
        ORDER BY xact_start LIMIT 1) AS oldest ON true
""")
_VACUUM = text("""
    SELECT relname, n_live_tup, n_dead_tup FROM pg_stat_user_tables
    WHERE schemaname = :schema ORDER BY relname
""")
_OUTBOX = text(f"""
    {PROMISED_QUEUES}
    SELECT queues.queue, most, count(*) AS owed, count(*) FILTER (WHERE dispatches > :often) AS again,
        count(*) FILTER (WHERE give_at < now() - CAST(:overdue AS interval)) AS late
    FROM queues, each, LATERAL (SELECT give_at, dispatches FROM arqonce.outbox AS job
        WHERE job.queue = queues.queue ORDER BY give_at LIMIT (SELECT most FROM each)) AS soonest
    GROUP BY queues.queue, most ORDER BY queues.queue
""")  # noqa: S608 - the number is a constant
