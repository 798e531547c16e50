"""Arrays of types that every PostgreSQL has under the same number: a connection need not ask what they are.

asyncpg asks in each new connection, at the first statement with such an array: three round trips, 8 to 13 ms, most of
it the server's work. A worker's pool has a dozen connections, and a fleet opens all of its own again after an outage.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

_KNOWN = {
    1000: (16, "bool"),
    1001: (17, "bytea"),
    1005: (21, "int2"),
    1007: (23, "int4"),
    1015: (1043, "varchar"),
    1016: (20, "int8"),
    1022: (701, "float8"),
    1115: (1114, "timestamp"),
    1182: (1082, "date"),
    1185: (1184, "timestamptz"),
    1187: (1186, "interval"),
    1231: (1700, "numeric"),
    2951: (2950, "uuid"),
    3807: (3802, "jsonb"),
}
"""Number of the array: number and name of its elements. PostgreSQL assigns them by hand, in ``pg_type.dat``."""


class Told(NamedTuple):
    """Takes the place of the statement that asyncpg asks with. It has a name: no unnamed statement was replaced."""

    name: str = "known"


def described(numbers: Iterable[int]) -> list[dict[str, Any]] | None:
    """Return what the server would tell asyncpg about these types, or None if one of them is not among the known."""
    asked = list(numbers)
    if not _KNOWN.keys() >= set(asked):
        return None
    return [_row(number, *_KNOWN[number]) for number in asked]


def _row(number: int, element: int, name: str) -> dict[str, Any]:
    return {
        "oid": number,
        "ns": "pg_catalog",
        "name": f"_{name}",
        "kind": b"b",
        "basetype": None,
        "elemtype": element,
        "elemdelim": b",",
        "range_subtype": None,
        "attrtypoids": None,
    }
