"""What a job that fails leaves in memory: nothing, also before garbage is collected, and where it never would be."""

import gc
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import ClassVar, TypeAlias

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.arq.functions import FunctionJob, Functions, FunctionSettings
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.work import RegistryJob, RegistryWork
from arqonce.failures import JobFailedError
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from arqonce.work import Claim
from jobs.payloads import NewUser
from jobs.registry import REGISTRY
from tests.arqonce.conftest import Context, build_function


class _Done(Result):
    """Never returned."""


class _Fail(Payload[_Done]):
    job_name: ClassVar[str] = "fail"
    how: str


async def _fail(_session: AsyncSession, payload: _Fail) -> _Done:
    if payload.how == "invalid answer":
        NewUser(name="\0")
    if payload.how == "of many":
        failures = []
        try:
            await _fail(_session, _Fail(how="one"))
        except ValueError as error:
            failures.append(error)
        raise ExceptionGroup("of many", failures)
    raise JobFailedError("no") if payload.how == "refused" else ValueError(payload.how)


_ALL = Registry(*REGISTRY, JobSpec(_Fail, _fail, max_attempts=2))

_JOBS = {
    "unknown": ("nobody", {}, 1),
    "invalid for pydantic": ("create_user", {"nme": "x"}, 1),
    "invalid for a validator": ("create_user", {"name": "\0"}, 1),
    "refused by its handler": ("fail", {"how": "refused"}, 1),
    "to be tried again": ("fail", {"how": "x"}, 1),
    "dead": ("fail", {"how": "x"}, 2),
    "dead of many": ("fail", {"how": "of many"}, 2),
    "dead of a validator": ("fail", {"how": "invalid answer"}, 2),
}


def _jobs() -> list[object]:
    return [one for one in gc.get_objects() if type(one) in {Delivery, RegistryJob, FunctionJob, _Fail}]


Kept: TypeAlias = Callable[[], list[object]]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Yield a function that returns what is there and was not before. Garbage is not collected meanwhile."""
    gc.collect()
    gc.disable()
    before = _jobs()  # those of other tests
    known = set(map(id, before))
    yield lambda: [one for one in _jobs() if id(one) not in known]
    gc.enable()


@pytest.mark.parametrize("how", ["alone", "together"])
@pytest.mark.parametrize("job", _JOBS)
async def test_a_job_that_fails_is_not_kept(
    sessions: async_sessionmaker[AsyncSession], job: str, how: str, kept: Kept
) -> None:
    """With it, its message would be, and all that was claimed together: 400 messages of 1 MB were 900 MB."""
    name, fields, attempt = _JOBS[job]
    work = RegistryWork(_ALL, Dispatcher(sessions), keep_result=timedelta(hours=1))
    message = json.dumps({"t": attempt, "f": name, "a": [], "k": fields, "et": 1}).encode()

    async def end() -> None:
        claims = [
            Claim(b"%d" % at, str(at), "owner", attempt, message, b"1", is_aborted=False, trouble=None)
            for at in range(3)
        ]
        jobs = [work.open(claim) for claim in claims]
        if how == "together" and jobs[0].kind:
            assert len(await work.run_together(jobs)) == 3
        for one in jobs if how == "alone" else ():
            await one.run()

    with capture_logs():
        await end()

    assert kept() == []


async def test_a_function_that_fails_is_not_kept(kept: Kept) -> None:
    """Neither are those of arq."""

    async def fail(_ctx: Context) -> None:
        raise ValueError

    settings = FunctionSettings(
        queue_name="arq:queue", max_tries=1, job_timeout_s=9, keep_result_s=9, keep_result_forever=False,
        retry_jobs=True, allow_abort_jobs=False,
    )  # fmt: skip
    message = json.dumps({"t": None, "f": "fail", "a": [], "k": {}, "et": 1}).encode()
    claim = Claim(b"j", "j", "owner", 1, message, b"1", is_aborted=False, trouble=None)

    with capture_logs():
        await Functions({"fail": build_function(fail)}, settings).open(claim).run()

    assert kept() == []
