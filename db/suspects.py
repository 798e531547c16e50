"""Recognises statements behind which a session needs more than the usual cleaning.

PREPARE leaves something that no command removes by itself, and whoever has set a role or a path may not find our
tables. To see to that behind each job would take a twentieth of a small one. So it is done behind statements with such
a word in them, and behind those that call what is no function of PostgreSQL's own.
"""

import re
from functools import lru_cache

_CALL = re.compile(r"(?<!INTO )(?<!AS )(?<!WITH )(?<!TABLE )\b([a-z_]\w*)\"?\s*\(", re.IGNORECASE)
_CODE = re.compile(
    r"\b(?:PREPARE|EXECUTE|DO|CALL|ROLE|AUTHORIZATION|SEARCH_PATH)\b(?!\s+(?:NOTHING|UPDATE)\b)", re.IGNORECASE
)

_HARMLESS = frozenset(
    """
    abs all and any array array_agg array_length array_position as avg between bool_and bool_or by case cast ceil
    char_length chr clock_timestamp coalesce concat concat_ws conflict count cume_dist current_setting date_part
    date_trunc decimal dense_rank distinct else exists extract filter first_value float floor from gen_random_uuid
    generate_series greatest group having ilike in initcap int interval is join json_agg json_build_object jsonb_agg
    jsonb_array_elements jsonb_build_object jsonb_each jsonb_object_agg jsonb_set key lag last_value lateral lead least
    left length like lower ltrim materialized max md5 min mod not now nullif numeric on only ordinality or over
    partition pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_xact_lock pg_backend_pid
    pg_current_xact_id pg_get_serial_sequence pg_notify pg_sleep pg_try_advisory_lock pg_try_advisory_xact_lock position
    power random rank regexp_replace replace returning right round row row_number rtrim select set set_config setval
    nextval similar sqrt string_agg substr substring sum text then timestamp timestamptz to_char to_date to_jsonb
    to_timestamp to_tsquery to_tsvector transaction_timestamp trim txid_current unnest upper using values varchar when
    where width_bucket with within
    """.split()  # noqa: SIM905 - a hundred words
)
"""PostgreSQL's own functions that are common, and words of SQL with a parenthesis behind them."""


@lru_cache(maxsize=1000)
def is_suspect(sql: str) -> bool:
    """Say whether the statement may execute PREPARE, SET ROLE or SET search_path. Triggers are not looked for."""
    if _CODE.search(sql):
        return True
    return any(name.lower() not in _HARMLESS for name in _CALL.findall(re.sub(r"\s+", " ", sql)))
