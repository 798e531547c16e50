"""What lies in Redis, as arq's worker gets to see it. No server is needed."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arqonce.arq.registry_functions import MessageReader, build_functions
from jobs.registry import REGISTRY

READ = MessageReader(REGISTRY)
GOOD: dict[str, object] = {"t": None, "f": "create_user", "a": [], "k": {"name": "x"}, "et": 1}


def test_a_good_message_passes_unchanged() -> None:
    """So do fields that a newer producer adds."""
    message = GOOD | {"trace": "abc"}

    assert READ(json.dumps(message).encode()) == message


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"f": ["x"]}, "field 'f' must be a string"),
        ({"t": "x"}, "field 't' must be null"),
        ({"t": 10**30}, "field 't' must be null"),
        ({"et": "now"}, "field 'et' must be an integer"),
        ({"et": 10**20}, "field 'et' must be an integer"),
        ({"et": True}, "field 'et' must be an integer"),
        ({"a": 5}, "field 'a' must be a list"),
        ({"k": None}, "field 'k' must be an object"),
        ({"f": "no_such"}, "this worker has no job 'no_such'; it has create_user, get_or_create_user"),
        ({"f": "no_such"}, "those of another project come with its registry in WORKER_REGISTRY"),
        ({"f": "refuse_message"}, "this worker has no job 'refuse_message'"),
    ],
)
def test_a_wrong_message_becomes_a_refusal_with_its_reason(change: dict[str, object], text: str) -> None:
    """Arq's worker dies of some of these, again and again."""
    message = READ(json.dumps(GOOD | change).encode())

    assert (message["f"], message["t"], message["et"]) == ("refuse_message", None, 0)
    assert text in message["a"][1]


@pytest.mark.parametrize("data", [b"", b"\xff", pickle.dumps(GOOD), b"[]", b"{}", b"x" * 2_000_000])
def test_bytes_that_are_no_message_become_a_refusal(data: bytes) -> None:
    """Never an exception."""
    assert READ(data)["f"] == "refuse_message"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            field: st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()) | st.just({})
            for field in ("t", "f", "a", "k", "et")
        },
    )
)
def test_whatever_the_envelope_arq_gets_the_right_types(envelope: dict[str, object]) -> None:
    """The types that arq relies on, for any JSON object."""
    message = READ(json.dumps(envelope).encode())

    assert isinstance(message["f"], str)
    assert isinstance(message["a"], list | tuple)
    assert isinstance(message["k"], dict)
    assert message["t"] is None or isinstance(message["t"], int)
    assert isinstance(message["et"], int)


def test_arqs_timeout_is_longer_than_our_deadline() -> None:
    """Arq's timeout is a permanent failure: ours must come first."""
    timeouts = {function.name: function.timeout_s for function in build_functions(REGISTRY)}

    assert all((timeouts[spec.name] or 0) >= spec.deadline.total_seconds() + 5 for spec in REGISTRY)
