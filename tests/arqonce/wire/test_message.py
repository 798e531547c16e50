"""The message of a job, as workers of any kind and age read it."""

import json
from typing import Any

import pytest
from arq.jobs import deserialize_job_raw

from arqonce.failures import MessageTooLargeError
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.codec import decode
from arqonce.wire.ended import write_result, write_success
from arqonce.wire.message import read_message
from arqonce.wire.request import write_job
from jobs import CreateUser

JANE = CreateUser(name="Jane")


def test_what_we_add_stands_beside_what_every_worker_reads() -> None:
    """The parent of a follow-up, and a trace. Arq's own reader passes over both, as workers of before do."""
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    plain = write_job(JANE, enqueued_ms=1)
    message = write_job(JANE, enqueued_ms=1, parent="order-4712", trace=trace)

    assert json.loads(message) == json.loads(plain) | {"p": "order-4712", "tc": trace}
    assert deserialize_job_raw(message, deserializer=decode) == deserialize_job_raw(plain, deserializer=decode)
    assert read_message(message) == read_message(plain)._replace(parent="order-4712", trace=trace)


@pytest.mark.parametrize("parent", [None, 5, "", "a b", "x" * 201, {}])
def test_a_parent_that_is_no_id_is_passed_over(parent: object) -> None:
    """It is no reason to refuse a job."""
    message = json.dumps(json.loads(write_job(JANE, enqueued_ms=1)) | {"p": parent}).encode()

    assert read_message(message).parent is None


@pytest.mark.parametrize("tag", ["12345678", None])
@pytest.mark.parametrize("job_id", ["plain", 'qu"ote', "back\\slash"])
def test_a_success_from_text_is_the_same_message(job_id: str, tag: str | None) -> None:
    """Whoever reads it, with whatever parser."""
    facts: dict[str, Any] = {
        "job_id": job_id, "attempt": 2, "enqueued_ms": 3, "started_ms": 4, "queue": 'a "bücher" queue', "tag": tag,
    }  # fmt: skip

    written = write_result("na\\me", {"id": 1, "name": "Jürgen"}, succeeded=True, **facts)
    spliced = write_success("na\\me", '{"id":1,"name":"Jürgen"}', **facts)

    assert json.loads(spliced) | {"ft": 0} == json.loads(written) | {"ft": 0}
    assert list(json.loads(spliced)) == list(json.loads(written))


def test_a_success_from_text_is_bounded_too() -> None:
    """As any message."""
    with pytest.raises(MessageTooLargeError):
        write_success(
            "f", f'"{"x" * MAX_BYTES}"', job_id="j", attempt=1, enqueued_ms=1, started_ms=1, queue="q", tag=None
        )
