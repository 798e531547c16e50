"""Recognizes statements after which a session must be cleaned thoroughly, because they may leave something in it.

All other statements are queries and changes of rows that call only common built-in functions whose effects are known.
Cleaning thoroughly after each of them would take a tenth of a small job's time. A statement does not show what triggers
and views call. So if user-defined functions in the database may leave something, every job is followed by a thorough
cleaning. A view that itself takes a lock is not detected. Settings and the last values of sequences are reset after
each job.
"""

import re
from functools import lru_cache

_CALL = re.compile(r"(?<!INTO )(?<!AS )(?<!WITH )(?<!TABLE )\b([a-z_]\w*)\"?\s*\(", re.IGNORECASE)
_CODE = re.compile(
    r"\b(?:PREPARE|EXECUTE|DO|CALL|ROLE|AUTHORIZATION|SEARCH_PATH|TEMP|TEMPORARY)\b(?!\s+(?:NOTHING|UPDATE)\b)",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n\r]*", re.DOTALL)
_SPACE = re.compile(r"\s+")
_PLAIN = re.compile(
    r"\s*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|SAVEPOINT|RELEASE|ROLLBACK|SET\s+LOCAL\s+LOCK_TIMEOUT)\b",
    re.IGNORECASE,
)

_HARMLESS = frozenset(
    """
    abs all and any array array_agg array_length array_position as avg between bool_and bool_or by case cast
    ceil char_length chr clock_timestamp coalesce concat concat_ws conflict count cume_dist current_setting
    date_part date_trunc decimal dense_rank distinct else exists extract filter first_value float floor from
    gen_random_uuid generate_series greatest group having ilike in initcap int interval is join json_agg
    json_build_object jsonb_agg jsonb_array_elements jsonb_build_object jsonb_each jsonb_object_agg jsonb_set
    key lag last_value lateral lead least left length like lower ltrim materialized max md5 min mod not now
    nullif numeric on only ordinality or over partition pg_advisory_unlock pg_advisory_xact_lock pg_backend_pid
    pg_current_xact_id pg_get_serial_sequence pg_notify pg_sleep pg_try_advisory_xact_lock position power random
    rank regexp_replace replace returning right round row row_number rtrim select set nextval similar sqrt
    string_agg substr substring sum text then timestamp timestamptz to_char to_date to_jsonb to_timestamp
    to_tsquery to_tsvector transaction_timestamp trim txid_current unnest upper using values varchar when where
    width_bucket with within
    """.split()  # noqa: SIM905 - a hundred words
)
"""Common built-in functions of PostgreSQL, and SQL keywords that a parenthesis may follow."""

HAS_SUSPECT_FUNCTIONS = r"""
    SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 AND (
        prosrc ~* '\m(pg_(try_)?advisory_lock(_shared)?|execute|prepare|hold|listen|temp|temporary|pg_temp)\M'
        OR prosrc ~* '\m(role|authorization|search_path)\M' OR (prosrc = '' AND prolang = 14)))
"""
"""Returns whether a user-defined function may leave something in a session. A body not stored as text may."""


@lru_cache(maxsize=1000)
def is_suspect(sql: str) -> bool:
    """Return whether the statement may leave something in the session, or set a role or the search path."""
    if _PLAIN.match(sql) is None or _CODE.search(sql):
        return True
    forms = {sql, _COMMENT.sub(" ", sql)}  # an apparent comment may be in a string constant and hide what follows
    return any(name.lower() not in _HARMLESS for form in forms for name in _CALL.findall(_SPACE.sub(" ", form)))
