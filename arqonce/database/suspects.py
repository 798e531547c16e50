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

_TABLE = re.compile(r"\bINTO\s+(?:\"?\w+\"?\s*\.\s*)+", re.IGNORECASE)
"""The schema of a table that rows are inserted into."""

_HARMLESS = frozenset(
    """
    abs age all and any array array_agg array_append array_cat array_length array_ndims array_position array_prepend
    array_remove array_replace array_to_string as asin atan atan2 avg between bit_length bool_and bool_or btrim by
    cardinality case cast cbrt ceil char_length chr clock_timestamp coalesce concat concat_ws conflict corr cos
    count cume_dist current_setting date_bin date_part date_trunc decimal decode degrees dense_rank distinct div
    else encode exists exp extract filter first_value float floor format from gen_random_uuid generate_series
    greatest group having ilike in initcap int interval is isfinite join json_agg json_array_elements
    json_array_length json_build_array json_build_object json_object_agg jsonb_agg jsonb_array_elements
    jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
    jsonb_exists jsonb_extract_path jsonb_extract_path_text jsonb_object_agg jsonb_object_keys jsonb_path_exists
    jsonb_path_query jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
    jsonb_typeof justify_interval key lag last_value lateral lead least left length like ln localtimestamp log lower
    lpad ltrim make_date make_interval make_timestamptz materialized max md5 min mod mode nextval not now nth_value
    ntile nullif numeric numrange octet_length on only or ordinality over overlay partition percent_rank
    percentile_cont percentile_disc pg_advisory_unlock pg_advisory_xact_lock pg_backend_pid pg_current_xact_id
    pg_get_serial_sequence pg_notify pg_sleep pg_try_advisory_xact_lock pi plainto_tsquery position power
    quote_ident quote_literal random rank regexp_match regexp_matches regexp_replace regexp_split_to_array repeat
    replace returning reverse right round row row_number row_to_json rpad rtrim select set sha256 sha512 sign
    similar sin split_part sqrt starts_with statement_timestamp stddev stddev_pop string_agg string_to_array strpos
    substr substring sum tan text then timestamp timestamptz timezone to_char to_date to_json to_jsonb to_number
    to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim trunc ts_rank tstzrange txid_current
    unnest upper using uuid_generate_v4 values varchar variance websearch_to_tsquery when where width_bucket with
    within
    """.split()  # noqa: SIM905 - two hundred words
)
"""Common built-in functions of PostgreSQL, and SQL keywords that a parenthesis may follow."""

_SETTING = re.compile(r"\s*SET\b", re.IGNORECASE)
_READING = re.compile(r"\s*(?:SELECT|VALUES)\b", re.IGNORECASE)
_WRITING = re.compile(r"\bINTO\b", re.IGNORECASE)

_EFFECTS = {"nextval", "pg_current_xact_id", "pg_notify", "txid_current"}
"""Those of the harmless functions that change something."""

SUSPECT_FUNCTIONS = r"""
    SELECT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 AND (
        prosrc ~* '\m(pg_(try_)?advisory_lock(_shared)?|execute|prepare|hold|listen|temp|temporary|pg_temp)\M'
        OR prosrc ~* '\m(role|authorization|search_path)\M' OR (prosrc = '' AND prolang = 14))),
    EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 AND (
        prosrc ~* '\m(set|reset|set_\w+)\M' OR (prosrc = '' AND prolang = 14)))
"""
"""Returns whether a user-defined function may leave something in a session, and whether one may change a setting.

A body not stored as text may do both. ``SET`` may also be that of an UPDATE.
"""


@lru_cache(maxsize=1000)
def is_suspect(sql: str) -> bool:
    """Return whether the statement may leave something in the session, or set a role or the search path."""
    if _PLAIN.match(sql) is None or _CODE.search(sql):
        return True
    forms = {sql, _COMMENT.sub(" ", sql)}  # an apparent comment may be in a string constant and hide what follows
    return not _HARMLESS.issuperset(name for form in forms for name in _calls(form))


@lru_cache(maxsize=1000)
def is_reading(sql: str) -> bool:
    """Return whether the statement is a query that changes nothing, as far as that can be known from its text."""
    return (
        _READING.match(sql) is not None
        and _WRITING.search(sql) is None
        and not is_suspect(sql)
        and _EFFECTS.isdisjoint(_calls(sql))
    )


@lru_cache(maxsize=1000)
def is_setting(sql: str) -> bool:
    """Return whether the statement sets something, be it for the transaction alone."""
    return _SETTING.match(sql) is not None


def _calls(sql: str) -> set[str]:
    """Return the names that a parenthesis follows."""
    return {name.lower() for name in _CALL.findall(_TABLE.sub("INTO ", _SPACE.sub(" ", sql)))}
