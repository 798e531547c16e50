"""Functions and a registry in one worker: who gets a job, and in what form its result is written."""

import json
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import decode, encode
from arqonce.arq.functions import FunctionJob, Functions, FunctionSettings, decode_undecided
from arqonce.arq.service import PickleOrJson
from arqonce.arq.side_by_side import PickledJob, SideBySide
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.work import RegistryJob, RegistryWork
from arqonce.work import Claim, Ended, Job
from jobs.registry import REGISTRY
from tests.arqonce.conftest import Context, build_function

Sessions = async_sessionmaker[AsyncSession]
MESSAGE: dict[str, Any] = {"t": None, "f": "price", "a": ("book",), "k": {}, "et": 1}


async def price(_ctx: Context, _what: str) -> int:
    """Answer."""
    return 1


def _functions(**serializers: Any) -> Functions:  # noqa: ANN401 - arq's
    settings = FunctionSettings(
        queue_name="q", max_tries=5, job_timeout_s=1, keep_result_s=1, keep_result_forever=False, retry_jobs=True,
        allow_abort_jobs=False, **serializers,
    )  # fmt: skip
    return Functions({"price": build_function(price)}, settings)


def _claim(message: bytes) -> Claim:
    return Claim(b"a", "a", "me", 1, message, b"1", is_aborted=False, trouble=None)


def _open(sessions: Sessions, message: bytes, deserializer: Callable[[bytes], dict[str, Any]]) -> Job:
    registry = RegistryWork(REGISTRY, Dispatcher(sessions), keep_result=timedelta(hours=1))
    return SideBySide(registry, _functions(job_deserializer=deserializer)).open(_claim(message))


@pytest.mark.parametrize(
    ("message", "deserializer", "kind"),
    [
        (encode(MESSAGE), decode, FunctionJob),
        (encode(MESSAGE | {"f": "create_user"}), decode, RegistryJob),
        (encode(MESSAGE | {"f": "gone"}), decode, RegistryJob),
        (pickle.dumps(MESSAGE), decode_undecided, FunctionJob),  # put back: the service may well read it yet
        (pickle.dumps(MESSAGE | {"f": "create_user"}), pickle.loads, PickledJob),
        (pickle.dumps(MESSAGE | {"f": "create_user", "a": (object,)}), pickle.loads, PickledJob),  # refused there
        (pickle.dumps(MESSAGE | {"f": "gone"}), pickle.loads, FunctionJob),  # answered as its producer reads it
        (pickle.dumps(MESSAGE)[:-9], pickle.loads, FunctionJob),
        (pickle.dumps(MESSAGE), decode, RegistryJob),  # the service has said JSON: recorded as what it is not
    ],
    ids=[
        "function",
        "handler",
        "unknown",
        "pickle that waits",
        "pickle for a handler",
        "pickle of anything",
        "unknown pickle",
        "broken pickle",
        "pickle of nobody",
    ],
)
async def test_a_job_is_whose_name_it_has(
    sessions: Sessions, message: bytes, deserializer: Callable[[bytes], dict[str, Any]], kind: type
) -> None:
    """JSON that nobody knows is the registry's, which records it; a pickle that the service reads is its own.

    Each claim has its message as Redis has it: by that the job is known from another one of its id.
    """
    job = _open(sessions, message, deserializer)

    assert type(job) is kind
    assert message in {job.claim.message, job.claim.raw}


@pytest.mark.parametrize("own", [None, encode])
def test_a_result_has_the_form_of_its_message(own: Callable[[dict[str, Any]], bytes] | None) -> None:
    """Whatever the service itself writes: its producers move one after the other."""
    writes = PickleOrJson(own)

    assert pickle.loads(writes.of(pickle.dumps(MESSAGE))({"r": 1})) == {"r": 1}  # noqa: S301 - our own
    assert decode(writes.of(encode(MESSAGE))({"r": 1})) == {"r": 1}
    assert writes({"r": 1}) == (pickle.dumps({"r": 1}) if own is None else encode({"r": 1}))


@pytest.mark.parametrize(
    "serializer",
    [json.dumps, lambda message: bytearray(encode(message)), lambda message: memoryview(encode(message))],
    ids=["text", "bytearray", "memoryview"],
)
async def test_a_result_is_recorded_whatever_type_the_serializer_returns(serializer: Callable[[Any], Any]) -> None:
    """As in arq, whose client encodes text: else the job is never over, and runs again when its lease ends."""
    job = _functions(job_serializer=serializer, job_deserializer=json.loads).open(_claim(json.dumps(MESSAGE).encode()))

    outcome = await job.run()

    assert isinstance(outcome, Ended)
    assert type(outcome.result) is bytes
    assert json.loads(outcome.result)["r"] == 1
