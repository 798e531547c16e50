"""Moves the ledger of the previous version out of the schema ``public``. Only one migration uses it.

Workers, relays and producers of that version keep running: the old names become updatable views of the same tables,
with the same privileges. ``deploy/postgres/drop-old-names.sql`` drops the views after the last process of that version
has stopped.

The old sequence stays, because no view can replace a sequence. The new sequence begins far above it, so that a new
relay's epoch is always the latest. An old relay's epoch may be lower than that of jobs that a new relay dispatched. If
Redis then loses these jobs, they are dispatched again when their retry time comes instead of at once.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, text

from arqonce.database.schema import OldLedgerError

_TABLES = {"job_outbox": "outbox", "dead_jobs": "dead_jobs", "job_receipts": "receipts"}
"""New table names by old ones, in the order in which a receipt's statement locks the tables, to avoid deadlocks."""

_SEQUENCE = "job_dispatch_epoch"

_LAST = "0004"
"""The last revision of the application's migrations that contained ledger tables."""

_EPOCHS = 1_000_000
"""How many epochs relays of the previous version may still begin; each restart of Redis begins one."""

_CONSTRAINTS = {
    "job_outbox": ("pkey", "message_size_check"),
    "dead_jobs": (),
    "job_receipts": ("pkey", "one_answer_check"),
}

_INDEXES = {"job_outbox": ("queue_idx", "epoch_idx"), "dead_jobs": (), "job_receipts": ("finished_at_idx",)}

_RIGHTS = text("""
    SELECT relname, NULL AS column, privilege_type,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee
    FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
    UNION ALL
    SELECT relname, quote_ident(attname), privilege_type,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
    WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
""")


def take_over(connection: Connection, schema: str) -> bool:
    """Move the old tables into ``schema``, in the open transaction; return whether there were any.

    Locks the tables exclusively until the commit.

    Raises:
        OldLedgerError: not all migrations of the previous version were applied.
    """
    if not _is_there(connection):
        return False
    connection.execute(text(f"LOCK TABLE {', '.join(f'public.{name}' for name in _TABLES)} IN ACCESS EXCLUSIVE MODE"))
    rights = connection.execute(_RIGHTS).all()
    for statement in [*_moves(schema), *_views(schema)]:
        connection.execute(text(statement))
    for name, column, privilege, grantee in rights:
        for statement in _grants(schema, name, f"({column})" if column else "", privilege, grantee):
            connection.execute(text(statement))
    return True


def _is_there(connection: Connection) -> bool:
    names = text(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'S')"
    )
    found = set(connection.scalars(names))
    if not {"job_receipts", "alembic_version"} <= found:
        return False
    revision = connection.scalar(text("SELECT max(version_num) FROM public.alembic_version"))
    if revision == _LAST and {*_TABLES, _SEQUENCE} <= found:
        return True
    if revision in {"0002", "0003"}:
        raise OldLedgerError(
            f"the database has an older version's migrations up to {revision}: apply those up to {_LAST} first, with "
            "the command migrate of the version before this one"
        )
    return False  # a table of the project that has the same name


def _moves(schema: str) -> Iterator[str]:
    for old, new in _TABLES.items():
        yield f'ALTER TABLE public.{old} SET SCHEMA "{schema}"'
        if new != old:
            yield f'ALTER TABLE "{schema}".{old} RENAME TO {new}'
        for name in _CONSTRAINTS[old]:
            yield f'ALTER TABLE "{schema}".{new} RENAME CONSTRAINT {old}_{name} TO {new}_{name}'
        for name in _INDEXES[old]:
            yield f'ALTER INDEX "{schema}".{old}_{name} RENAME TO {new}_{name}'
    yield f'CREATE SEQUENCE "{schema}".dispatch_epoch'
    # The names are constants.
    yield f"SELECT setval('\"{schema}\".dispatch_epoch', last_value + {_EPOCHS}) FROM public.{_SEQUENCE}"  # noqa: S608


def _views(schema: str) -> Iterator[str]:
    """Yield views that access the tables with their owner's privileges; grants on the views restrict columns.

    With security_invoker a role would need privileges on all columns, because a view's query reads them all.
    """
    for old, new in _TABLES.items():
        yield f'CREATE VIEW public.{old} AS SELECT * FROM "{schema}".{new}'  # noqa: S608 - the names are constants


def _grants(schema: str, name: str, columns: str, privilege: str, grantee: str) -> Iterator[str]:
    """Yield the grants that replace a privilege on an old table or sequence."""
    if name in _TABLES and privilege in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
        yield f'GRANT USAGE ON SCHEMA "{schema}" TO {grantee}'
        yield f"GRANT {privilege} {columns} ON public.{name} TO {grantee}"
    elif name == _SEQUENCE:
        yield f'GRANT {privilege} ON SEQUENCE "{schema}".dispatch_epoch TO {grantee}'
    elif name == "alembic_version" and privilege == "SELECT":
        yield f'GRANT USAGE ON SCHEMA "{schema}" TO {grantee}'
        yield f'GRANT SELECT {columns} ON "{schema}".ledger_version TO {grantee}'
