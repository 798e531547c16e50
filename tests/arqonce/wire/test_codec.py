"""JSON on the wire. No server is needed."""

import json
import pickle
from asyncio import CancelledError
from concurrent import futures
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Secret, SecretStr

from arqonce.failures import InvalidMessageError, JobFailedError, failure_from_wire, failure_to_wire
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.codec import decode, encode
from jobs.payloads import EmailTakenError, UserView

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON).filter(lambda message: "s" not in message))
def test_what_is_written_is_read_back(message: dict[str, object]) -> None:
    """Both directions agree, and any language's JSON reads it."""
    data = encode(message)

    assert decode(data) == message
    assert json.loads(data) == message


def test_models_and_times_are_written_as_json() -> None:
    """A handler's result needs no conversion by hand."""
    view = UserView(id=1, name="Jane", email=None, created_at=datetime(2026, 1, 2, tzinfo=UTC))

    message = decode(encode({"s": True, "r": view}))

    assert message["r"] == {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-02T00:00:00Z"}


def test_a_failure_is_plain_json_and_comes_back_as_its_type() -> None:
    """Any language reads type and message; Python gets the typed error."""
    data = encode({"s": False, "r": EmailTakenError("taken")})

    failure = decode(data)["r"]

    assert json.loads(data)["r"] == {"type": "email_taken", "message": "taken"}
    assert isinstance(failure, EmailTakenError)
    assert str(failure) == "email_taken: taken"


def test_a_foreign_exception_stays_readable() -> None:
    """An exception whose constructor nobody else can call makes no result unreadable (arq's does)."""

    class OddError(Exception):
        def __init__(self, one: int, *, two: int) -> None:
            super().__init__(f"{one} and {two}")

    failure = decode(encode({"s": False, "r": OddError(1, two=2)}))["r"]

    assert (type(failure), failure.code, failure.message) == (JobFailedError, "OddError", "1 and 2")


def test_a_cancelled_call_of_a_thread_is_no_abort() -> None:
    """Its exception has the name of asyncio's, by which arq's clients know that a job was aborted."""
    message = decode(encode({"s": False, "r": futures.CancelledError()}))

    assert message["r"].code == "concurrent.futures._base.CancelledError"


def test_an_aborted_job_comes_back_as_cancelled() -> None:
    """Arq's own Job.abort() waits for exactly this exception; other languages read the type of the contract."""
    now = encode({"s": False, "r": CancelledError()})
    before = b'{"s":false,"r":{"type":"CancelledError","message":""}}'

    assert json.loads(now)["r"]["type"] == "aborted"
    assert [type(decode(result)["r"]) for result in (now, before)] == [CancelledError, CancelledError]


@pytest.mark.parametrize("failure", [None, 3, "text", [], {}, {"type": 5}, {"type": "email_taken"}])
def test_whatever_stands_for_a_failure_is_readable(failure: object) -> None:
    """A result written by anybody can be raised."""
    assert isinstance(failure_from_wire(failure), JobFailedError)


def test_a_long_text_of_a_foreign_exception_is_cut() -> None:
    """A traceback in a message does not fill Redis."""
    assert len(failure_to_wire(ValueError("x" * 10_000))["message"]) == 500


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (pickle.dumps({"f": "create_user"}), "is a pickle.*arqonce.encode"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b'{"a": NaN}', "not JSON"),
        (b"[1]", "not an object: list"),
        (b'{"a": 1%s}' % (b"0" * 4300), "an integer of more than 4,300 digits"),
        (b"[" * 100_000, "more than 198 lists and objects inside each other"),
        (b'"' + b"x" * MAX_BYTES + b'"', "1,048,578 bytes.*split it"),
    ],
)
def test_what_cannot_be_read_says_why(data: bytes, text: str) -> None:
    """Pickle, garbage, another type, a nesting bomb, a large message: one clear error each."""
    with pytest.raises(InvalidMessageError, match=text):
        decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_anything_else(data: bytes) -> None:
    """The reader is total: a message or InvalidMessageError."""
    try:
        message = decode(data)
    except InvalidMessageError:
        return

    assert isinstance(message, dict)


class _Login(BaseModel):
    password: SecretStr


def test_what_json_cannot_hold_is_refused_at_once() -> None:
    """The producer learns it, not the worker."""
    with pytest.raises(InvalidMessageError, match="cannot be written as JSON"):
        encode({"k": {"value": object()}})


@pytest.mark.parametrize(
    "secret", [SecretStr("hidden-word"), Secret[int](5), {"a": [_Login(password=SecretStr("hidden-word"))]}]
)
def test_arq_s_own_pool_sends_no_asterisks(secret: object) -> None:
    """The worker would take them for the secret. A text of asterisks is one."""
    with pytest.raises(InvalidMessageError, match="has a SecretStr") as caught:
        encode({"k": {"value": secret}})

    assert "hidden-word" not in str(caught.value)
    assert b"***" in encode({"k": {"value": "*" * 10}})


def test_a_large_message_is_refused_at_once() -> None:
    """The limit holds on the producer's side as well."""
    with pytest.raises(InvalidMessageError, match="split it"):
        encode({"k": "x" * MAX_BYTES})
