"""The ledger in a PostgreSQL schema with another name than its own."""

from datetime import timedelta

import pytest

from arqonce import JobStatus
from arqonce.database.engine import open_database
from arqonce.database.schema import require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.environment import SettingsError
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.ledger.dead_jobs import DeadLetter, insert_dead_letter
from arqonce.ledger.outbox import dispatch_batch, next_epoch
from arqonce.ledger.schema import ledger_of, upgrade_schemas
from arqonce.ledger.where import trace_by_job_id
from arqonce.namespace import require_namespace
from arqonce.outbox import enqueue_in, status_in
from arqonce.process.housekeeping import sweep
from arqonce.testing.databases import in_thread
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests.arqonce.follow_ups import REGISTRY as JOBS
from tests.arqonce.ledger.conftest import read_sql
from tests.promised import whereabouts

_LETTER = DeadLetter(
    job_id="three", job_name="create_user", message=b"{}", reason="invalid_payload", sqlstate=None,
    explanation="", error="", attempts=1, queue="arq:queue",
)  # fmt: skip


async def test_the_ledger_may_lie_in_another_schema(empty: DatabaseSettings) -> None:
    """Migrations, promises, the relay, workers and queries use the one that the setting names, and no other."""
    settings = empty.model_copy(update={"ledger_schema": "user"})  # a word of SQL
    in_thread(upgrade_schemas, settings, REGISTRY.schemas)
    async with open_database(settings, pool_size=3) as sessions:
        await require_current_schemas(sessions, (ledger_of(settings), *REGISTRY.schemas))
        async with sessions.begin() as session:
            for key in ("one", "two"):
                await enqueue_in(session, CreateUser(name="Jane"), key=key, schema="user")
        dispatcher = Dispatcher(sessions)
        await dispatcher.run(REGISTRY["create_user"], Delivery("one", 1, (), {"name": "Jane"}))
        done = await dispatcher.run(JOBS["chain"], Delivery("chain", 1, (), {"left": 1}))  # its handler names no schema
        async with sessions.begin() as session:
            epoch = await next_epoch(session)
            given = await dispatch_batch(session, epochs={"arq:queue": epoch}, keep=timedelta(days=1), most_bytes=1000)
            await insert_dead_letter(session, _LETTER)
            found = await whereabouts(session, ["one", "two", "three"])
            traces = [await trace_by_job_id(session, key) for key in ("one", "two", "three")]
            status = await status_in(session, "two", schema="user")
        removed = await sweep(sessions, {"receipts": timedelta(0), "dead_jobs": timedelta(0)})

    assert found == {"one": ["receipts"], "two": ["outbox"], "three": ["dead"]}
    assert ({promise.job_id for promise in given}, epoch, status) == (
        {"two", *done["follow_ups"]},
        1,
        JobStatus.PROMISED,
    )
    assert [trace is None for trace in traces] == [False, False, False]
    assert removed == {"receipts": 2, "dead_jobs": 1}
    assert read_sql(empty, "SELECT to_regnamespace('arqonce') IS NULL") == [True]


@pytest.mark.parametrize(
    "name", ["public", "pg_jobs", "information_schema", "1st", "Jobs", 'a"; DROP', "a b", "x" * 41]
)
def test_a_name_that_the_schema_cannot_have_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is set and where it is given: it becomes part of SQL."""
    monkeypatch.setenv("DATABASE_LEDGER_SCHEMA", name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://user@host/database")

    with pytest.raises(ValueError, match="must be 1 to 40 of a-z, 0-9 and _"):
        require_namespace(name)
    with pytest.raises(SettingsError, match="DATABASE_LEDGER_SCHEMA"):
        DatabaseSettings.load()
