"""Any message, from bytes to payload, as the worker reads it. No server is needed."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from jobs.registry import REGISTRY
from tests.fuzz.oracle import check_message

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["id", "name", "email", "users", "ctx", "payload"]) | st.text()
USERS = st.lists(st.fixed_dictionaries({"name": st.text() | VALUES, "email": st.none() | st.text()}), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {
        "f": st.sampled_from(REGISTRY.names),
        "k": st.dictionaries(FIELDS, VALUES | USERS, max_size=4),
        "et": st.just(0) | st.integers(),
    },
    optional={"a": st.lists(VALUES, max_size=4), "t": st.none() | st.integers(), "s": VALUES},
)


@given(MESSAGES)
@example({"f": "create_user", "k": {"\0": 1, "name": "x"}, "et": 0})  # once delivered again for ever
@example({"f": "create_user", "k": {"name": "x"}, "et": 10**30})
@example({"f": "find_user", "k": {"id": 2**63}, "et": 0})
def test_any_message_ends_as_a_payload_or_a_reason(message: dict[str, object]) -> None:
    """Nothing else is raised, both can be stored, and an accepted payload is the same when enqueued again."""
    outcome = check_message(json.dumps(message).encode())

    assert outcome in {*REGISTRY.names, "result", "malformed_message", "invalid_payload"}


@given(st.binary(max_size=300))
def test_any_bytes_end_as_a_reason(data: bytes) -> None:
    """The same, where it is hardly ever JSON."""
    assert check_message(data) in {*REGISTRY.names, "result", "malformed_message", "unknown_job"}
