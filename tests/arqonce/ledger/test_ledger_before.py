"""A database of the version before, whose ledger lay in ``public``: it is taken over, and its processes go on.

The statements are those of that version, word for word. That its workers, relays and producers run beside new ones was
tried with its code.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import make_url

from arqonce.database.engine import open_database
from arqonce.database.schema import OldLedgerError, require_current_schemas, revisions
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.outbox import next_epoch
from arqonce.ledger.schema import LEDGER, upgrade_schemas
from arqonce.testing.databases import in_thread
from db.tables import SCHEMA
from jobs.registry import REGISTRY
from tests.arqonce.ledger.alembic_checks import check_migrations
from tests.arqonce.ledger.conftest import read_sql, run_sql
from tests.leaks import PASSWORD
from tests.rights import DEPLOY

BEFORE = Path(__file__).parent / "ledger_before.sql"
PLACES = ("arqonce.receipts", "arqonce.dead_jobs", "arqonce.outbox")
OLD_NAMES = ("job_receipts", "dead_jobs", "job_outbox")

_RECEIPT = """
    WITH job AS MATERIALIZED (
        SELECT job.*,
            (SELECT job_outbox.request_hash = job.request_hash FROM job_outbox
             WHERE job_outbox.job_id = job.job_id AND job_name = $6) AS keeps,
            (SELECT true FROM dead_jobs
             WHERE dead_jobs.job_id = job.job_id
                AND (dead_jobs.request_hash IS NULL OR dead_jobs.request_hash = job.request_hash)) AS revives
        FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::integer[])
            AS job (job_id, request_hash, result, failure, attempt)),
    kept AS (
        DELETE FROM job_outbox
        WHERE (SELECT bool_or(keeps) FROM job) AND job_name = $6
            AND job_id = ANY (ARRAY(SELECT job_id FROM job WHERE keeps))),
    revived AS (
        DELETE FROM dead_jobs
        WHERE (SELECT bool_or(revives) FROM job) AND job_id = ANY (ARRAY(SELECT job_id FROM job WHERE revives)))
    INSERT INTO job_receipts (job_id, job_name, request_hash, result, failure, attempt)
    SELECT job_id, $6, request_hash, result::jsonb, failure::jsonb, attempt FROM job
    ORDER BY job_id
"""

_PROMISE = """
WITH request AS (
    SELECT CAST($1 AS text) AS job_id, CAST('create_user' AS text) AS job_name, CAST('arq:queue' AS text) AS queue,
        CAST('m' AS bytea) AS message, CAST('h' AS bytea) AS request_hash, now() AS due_at),
ended AS (
    SELECT job_name, request_hash FROM job_receipts WHERE job_id = (SELECT job_id FROM request)
    UNION ALL SELECT job_name, request_hash FROM dead_jobs AS dead WHERE job_id = (SELECT job_id FROM request)
        AND NOT EXISTS (SELECT FROM job_receipts WHERE job_receipts.job_id = dead.job_id)),
promised AS (
    INSERT INTO job_outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, queue, message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request WHERE NOT EXISTS (SELECT FROM ended)
    ON CONFLICT (job_id) DO NOTHING
    RETURNING queue, give_at)
SELECT 'new' AS outcome,
    CASE WHEN give_at <= clock_timestamp() THEN CAST(pg_notify('job_outbox', queue) AS text) END AS woken
FROM promised
UNION ALL
SELECT CASE WHEN known.job_name = request.job_name AND known.request_hash = request.request_hash
    THEN 'duplicate' ELSE 'conflict' END, NULL
FROM request, (
    SELECT job_name, request_hash FROM ended
    UNION ALL SELECT job_name, request_hash FROM job_outbox WHERE job_id = (SELECT job_id FROM request)) AS known
ORDER BY outcome LIMIT 1
"""

_DISPATCH = """
    WITH waiting AS (
        SELECT job_id FROM job_outbox WHERE queue = $1 AND give_at <= now()
        ORDER BY give_at LIMIT 500 FOR UPDATE SKIP LOCKED),
    forgotten AS (
        SELECT job_id FROM job_outbox WHERE queue = $1 AND epoch < $2 AND dispatched_at IS NOT NULL
        ORDER BY epoch LIMIT 500 FOR UPDATE SKIP LOCKED),
    chosen AS (SELECT job_id FROM waiting UNION SELECT job_id FROM forgotten LIMIT 500)
    UPDATE job_outbox AS job SET
        epoch = $2,
        dispatched_at = now(),
        dispatches = CASE WHEN epoch < $2 THEN 1 ELSE dispatches + 1 END,
        give_at = greatest(now(), due_at) + interval '30 seconds'
    FROM chosen WHERE job.job_id = chosen.job_id
    RETURNING job.job_id
"""

_BURY = """
    INSERT INTO dead_jobs (job_id, message, reason, explanation, error, attempts) VALUES ($1, 'm', 'r', 'e', 'e', 1)
    ON CONFLICT (job_id) DO UPDATE SET reason = excluded.reason, died_at = excluded.died_at
"""

_SWEEP = """
    DELETE FROM job_receipts WHERE job_id IN (
        SELECT job_id FROM job_receipts WHERE finished_at < now() - interval '30 days'
        ORDER BY finished_at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    RETURNING job_id
"""


@pytest.fixture
def before(empty: DatabaseSettings) -> DatabaseSettings:
    """Make a database of the version before."""
    run_sql(empty, BEFORE.read_text())
    return empty


@pytest.fixture
def old_worker(before: DatabaseSettings) -> Iterator[str]:
    """Make a role with the rights of a worker of that version, on tables and columns; return its URL."""
    run_sql(
        before,
        f"CREATE ROLE old_worker LOGIN PASSWORD '{PASSWORD}'; "
        "GRANT SELECT (job_id, job_name, request_hash, finished_at), DELETE, UPDATE (attempt), "
        "INSERT (job_id, job_name, request_hash, result, failure, attempt) ON job_receipts TO old_worker; "
        "GRANT ALL ON job_outbox, dead_jobs TO old_worker; "
        "GRANT USAGE ON SEQUENCE job_dispatch_epoch TO old_worker; GRANT SELECT ON alembic_version TO old_worker",
    )
    url = make_url(before.url.get_secret_value()).set(username="old_worker", password=PASSWORD)
    yield url.render_as_string(hide_password=False)
    run_sql(before, "DROP OWNED BY old_worker; DROP ROLE old_worker")


def _upgrade(settings: DatabaseSettings) -> dict[str, list[str]]:
    return in_thread(upgrade_schemas, settings, REGISTRY.schemas)


def _ids(settings: DatabaseSettings, table: str) -> list[object]:
    return read_sql(settings, f"SELECT job_id FROM {table} ORDER BY 1")  # noqa: S608 - a table of ours


def test_a_database_of_the_version_before_is_taken_over_with_its_rows(before: DatabaseSettings) -> None:
    """The ledger moves, the application's tables get what is newer, and both are as the code's."""
    applied = _upgrade(before)

    rows = [_ids(before, place) for place in PLACES]
    assert (applied, rows) == (
        {"arqonce": revisions(LEDGER), "users_worker": ["0005"]},
        [["ended"], ["dead"], ["owed"]],
    )
    for schema in (LEDGER, SCHEMA):
        in_thread(check_migrations, before, schema)


def test_what_is_taken_over_is_named_as_what_is_made_anew(before: DatabaseSettings, database: DatabaseSettings) -> None:
    """Constraints and indexes too: later migrations find them by their names."""
    query = (
        "SELECT conname FROM pg_constraint WHERE connamespace = 'arqonce'::regnamespace AND contype <> 'n' "
        "UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'arqonce'::regnamespace ORDER BY 1"
    )

    _upgrade(before)

    assert read_sql(before, query) == read_sql(database, query)


def test_the_take_over_happens_once(before: DatabaseSettings) -> None:
    """A second ``migrate`` finds nothing to do, and takes the views for no tables."""
    _upgrade(before)

    assert _upgrade(before) == {"arqonce": [], "users_worker": []}


async def test_statements_of_the_version_before_go_on(before: DatabaseSettings, old_worker: str) -> None:
    """With the rights that its role had, and statements that its connection had prepared before."""
    connection = await asyncpg.connect(old_worker)
    prepared = [await connection.prepare(sql) for sql in (_RECEIPT, _PROMISE, _DISPATCH, _BURY, _SWEEP)]
    receipt, promise, dispatch, bury, sweep = [one.fetch for one in prepared]
    heard: asyncio.Queue[object] = asyncio.Queue()
    await connection.add_listener("job_outbox", lambda *told: heard.put_nowait(told[-1]))

    _upgrade(before)

    outcomes = [(await promise(key))[0]["outcome"] for key in ("new", "new", "ended", "dead")]
    given = {row["job_id"] for row in await dispatch("arq:queue", 3)}
    await receipt(["new", "dead"], [b"h", b"h"], ["{}", "{}"], [None, None], [1, 1], "create_user")
    with pytest.raises(asyncpg.UniqueViolationError):
        await receipt(["new"], [b"h"], ["{}"], [None], [1], "create_user")
    for _ in range(2):
        await bury("gone")
    swept = await sweep()
    epoch = await connection.fetchval("SELECT nextval('job_dispatch_epoch')")
    version = await connection.fetchval("SELECT version_num FROM alembic_version")
    await connection.close()

    assert outcomes == ["new", "duplicate", "duplicate", "conflict"]
    assert (given, swept, epoch, version, heard.get_nowait()) == ({"new", "owed"}, [], 3, "0005", "arq:queue")
    found = [_ids(before, place) for place in PLACES]
    assert found == [["dead", "ended", "new"], ["gone"], ["owed"]]


async def test_a_role_of_the_version_before_may_run_the_new_code(before: DatabaseSettings, old_worker: str) -> None:
    """What it was granted counts in the new place: workers start before ``grants.sql`` has run again."""
    _upgrade(before)

    async with open_database(DatabaseSettings.model_validate({"url": old_worker}), pool_size=1) as sessions:
        await require_current_schemas(sessions, [LEDGER])
        async with sessions() as session:
            assert await next_epoch(session) == 1_000_003  # later than any that an old relay will begin


@pytest.mark.parametrize("revision", ["0002", "0003"])
def test_a_database_that_lacks_migrations_of_the_version_before_is_refused(
    before: DatabaseSettings, revision: str
) -> None:
    """And left as it is; the text says what to run first."""
    run_sql(before, f"UPDATE alembic_version SET version_num = '{revision}'")  # noqa: S608 - a number of ours

    with pytest.raises(OldLedgerError, match=rf"migrations up to {revision}: apply those up to 0004 first, with the"):
        _upgrade(before)

    assert read_sql(before, "SELECT job_id FROM job_receipts") == ["ended"]
    assert read_sql(before, "SELECT to_regnamespace('arqonce') IS NULL") == [True]


async def test_the_old_names_can_be_dropped(before: DatabaseSettings) -> None:
    """Once the last process of that version is gone; the file may be run again."""
    _upgrade(before)

    for _ in range(2):
        run_sql(before, (DEPLOY / "postgres" / "drop-old-names.sql").read_text())

    left = read_sql(before, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    assert set(left).isdisjoint({*OLD_NAMES, "job_dispatch_epoch"})
    assert read_sql(before, "SELECT job_id FROM arqonce.dead_jobs") == ["dead"]


def test_a_services_own_table_of_an_old_name_is_left_alone(before: DatabaseSettings) -> None:
    """Only a database that our own migrations have made is taken over; here the revision is another project's."""
    run_sql(before, "UPDATE alembic_version SET version_num = 'ae1027a6acf'")

    in_thread(upgrade_schemas, before)

    assert read_sql(before, "SELECT job_id FROM public.dead_jobs UNION ALL SELECT job_id FROM arqonce.outbox") == [
        "dead"
    ]
