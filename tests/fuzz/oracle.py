"""Reads a message as the worker does, and checks what must hold for any bytes whatever."""

from typing import Any

from arqonce.arq.registry_functions import REFUSE, MessageReader
from arqonce.execution.dead_letters import write_letter
from arqonce.failures import InvalidPayloadError, JobFailedError
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import decode, encode
from arqonce.wire.request import write_job
from jobs.registry import REGISTRY

_READ = MessageReader(REGISTRY)


def check_message(data: bytes) -> str:
    """Return what becomes of the message: its job's name, or the reason why there is none.

    Raises:
        AssertionError: something does not hold. Any other error would have ended arq's worker.
    """
    message = _READ(data)
    assert type(message["f"]) is str
    assert isinstance(message["a"], list | tuple)
    assert isinstance(message["k"], dict)
    assert message["t"] is None or isinstance(message["t"], int)
    assert isinstance(message["et"], int)
    if "s" in message:
        return "result"
    if message["f"] == REFUSE:
        code, text, kept = message["a"]
        return _dead(JobFailedError.from_code(code, text), kept)
    try:
        payload = read_payload(REGISTRY[message["f"]].payload, message["a"], message["k"])
    except InvalidPayloadError as error:
        return _dead(error, encode({**message, "a": message["a"]}))
    _require_same_again(payload)
    return str(payload.job_name)


def _dead(failure: JobFailedError, message: bytes) -> str:
    """Check that the failure can be stored and told."""
    letter = write_letter(failure, failure, job_id="id", job_name=None, message=message, attempts=1, queue="q")
    for text in (letter.reason, letter.explanation, letter.error):
        assert "\0" not in text
        text.encode()
    assert decode(encode({"s": False, "r": failure}))["r"].code == failure.code
    return failure.code


def _require_same_again(payload: Any) -> None:  # noqa: ANN401 - any payload
    """Check that what was accepted can be enqueued, and is then the same request."""
    again = decode(write_job(payload, enqueued_ms=0))
    assert read_payload(type(payload), again["a"], again["k"]) == payload
    assert "\\u0000" not in payload.model_dump_json()
