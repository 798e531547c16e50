"""A line of the registry that cannot work is refused when it is written, with its cure."""

from datetime import timedelta
from functools import partial, wraps
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.job import JobContext
from arqonce.payloads import Payload, Result
from arqonce.resources import Resource
from arqonce.spec import JobSpec, Registry
from jobs.payloads import CreateUser


class Done(Result):
    """Nothing."""


class Work(Payload[Done]):
    """A job."""

    job_name: ClassVar[str] = "work"


class Other(Work):
    """Another one, of the same name."""


class Nameless(Payload[Done]):
    """Not for the wire."""


class Named(Payload[Done]):
    """Its name is a field by mistake."""

    job_name: str = "named"  # type: ignore[misc] # the mistake


class Resultless(Payload):  # type: ignore[type-arg] # the mistake
    """No answer is declared."""

    job_name: ClassVar[str] = "resultless"


async def work(_session: AsyncSession, _payload: Any) -> Done:  # noqa: ANN401 - any of these
    """Do it."""
    return Done()


def work_at_once(_session: AsyncSession, _payload: Any) -> Done:  # noqa: ANN401 - any of these
    """Do it, and block."""
    return Done()


@wraps(work)
def _decorated(*arguments: Any) -> Any:  # noqa: ANN401 - handed on
    return work(*arguments)


async def with_job(_session: AsyncSession, _payload: Any, job: JobContext) -> Done:  # noqa: ANN401 - any of these
    """Ask for the context."""
    assert job
    return Done()


async def with_default(_session: AsyncSession, _payload: Any, _strict: bool = True) -> Done:  # noqa: ANN401, FBT001, FBT002
    """Have a parameter of its own."""
    return Done()


async def with_optional_job(_session: AsyncSession, _payload: Any, _job: "JobContext | None" = None) -> Done:  # noqa: ANN401
    """Ask for it, and do without it in tests."""
    return Done()


async def with_client(_session: Any, _payload: Any, _client: Any) -> Done:  # noqa: ANN401 - any of these
    """Get it from a wrapper."""
    return Done()


async def with_nothing(_session: AsyncSession) -> Done:
    """Lack a parameter."""
    return Done()


async def with_too_much(_session: AsyncSession, _payload: Any, _job: JobContext, _more: int) -> Done:  # noqa: ANN401
    """Ask for too much."""
    return Done()


async def with_keyword(_session: AsyncSession, _payload: Any, *, job: JobContext) -> Done:  # noqa: ANN401
    """Ask for it by name."""
    assert job
    return Done()


async def turned_round(_payload: Work, _session: AsyncSession) -> Done:
    """Have the session last."""
    return Done()


@wraps(with_client)
def _adds_client(*arguments: Any) -> Any:  # noqa: ANN401 - handed on
    session, payload = arguments
    return with_client(session, payload, "client")


@wraps(with_job)
def _hands_on(*arguments: Any) -> Any:  # noqa: ANN401 - handed on
    return with_job(*arguments)


class Worker:
    """A handler with a state."""

    async def __call__(self, _session: AsyncSession, _payload: Work) -> Done:
        """Do it."""
        return Done()


def _no_bank() -> Any:  # noqa: ANN401 - never opened
    raise AssertionError


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ((Work, work_at_once), {}, "the handler of work, work_at_once, is no coroutine function: write async def"),
        ((Work, None), {}, "the handler of work, None, is no coroutine function"),
        ((Work, work), {"batch": work_at_once}, "the batch of work, work_at_once, is no coroutine function"),
        ((Work, work), {"batch": work, "max_batch": 0}, "the job work: max_batch and max_attempts are 1 or more"),
        (
            (Work, work),
            {"batch": work, "shares_transaction": True},
            "the job work has a batch handler: remove shares_transaction",
        ),
        ((Work, work), {"shares_transaction": 1}, "the job work: shares_transaction is True or False"),
        ((Work, work), {"max_attempts": "3"}, "the job work: max_batch and max_attempts are 1 or more"),
        ((Work, work), {"deadline": 5}, "the job work: deadline is a timedelta"),
        ((Work, work), {"deadline": timedelta.max}, "deadline is a timedelta of at most 12 hours"),
        ((Work, work), {"former_names": "old"}, "the job work: former_names is a tuple of names"),
        (
            (Work, with_nothing),
            {},
            r"the handler of work, with_nothing, must take \(session, payload\) or \(session",
        ),
        (
            (Work, with_too_much),
            {},
            r"must take \(session, payload\) or \(session, payload, job: JobContext\), in",
        ),
        (
            (Work, turned_round),
            {},
            r"the handler of work, turned_round, must take \(session, payload\) or .* in this order",
        ),
        (
            (Work, work),
            {"refusals": {"work_key": "taken"}},
            "the job work: refusals has a Refusal for the name of each",
        ),
        ((Work, with_keyword), {}, r"the handler of work, with_keyword, must take \(session, payload\) or"),
        ((Work, work), {"batch": with_too_much}, r"the batch of work, .*\(session, payloads, jobs: Sequence\[JobCont"),
        ((Nameless, work), {}, "Nameless has no job_name: give the class"),
        ((Named, work), {}, r"Named has no job_name: .* job_name: ClassVar\[str\] = "),
        ((Resultless, work), {}, r"Resultless must inherit from Payload\[SomeResult\]"),
        ((Done, work), {}, "Done'> is no payload: give the class"),
    ],
)
def test_what_cannot_work_is_refused_at_once(arguments: tuple[Any, Any], options: dict[str, Any], problem: str) -> None:
    """Not with the first job, in a worker."""
    with pytest.raises(TypeError, match=problem):
        JobSpec(*arguments, **options)


@pytest.mark.parametrize(
    "handler",
    [work, _decorated, partial(work), Worker(), partial(Worker()), partial(partial(_decorated))],
    ids=["function", "decorated", "partial", "object", "partial object", "partial decorated"],
)
def test_whatever_can_be_awaited_is_a_handler(handler: Any) -> None:  # noqa: ANN401 - handlers
    """Decorated, partly applied, or an object."""
    assert JobSpec(Work, handler).name == "work"


@pytest.mark.parametrize(
    ("handler", "takes_job"),
    [
        (work, False),
        (_decorated, False),
        (Worker(), False),
        (with_default, False),
        (_adds_client, False),
        (with_job, True),
        (_hands_on, True),
        (with_optional_job, True),
        (partial(with_job), True),
        (partial(with_client, _client="client"), False),
    ],
)
def test_the_context_is_for_those_who_ask(handler: Any, takes_job: bool) -> None:  # noqa: ANN401, FBT001 - handlers
    """What was a handler without it stays one, and what a wrapper adds is not replaced."""
    assert JobSpec(Work, handler).takes_job is takes_job
    assert JobSpec(Work, work, batch=handler).batch_takes_jobs is takes_job


@pytest.mark.parametrize(
    ("resources", "error", "problem"),
    [
        (Resource("bank", _no_bank), TypeError, r"resources is a list: Registry\(..., resources=\[BANK\]\)"),
        ([_no_bank], TypeError, "is no resource: name what arqonce.Resource"),
        ([Resource("bank", _no_bank), Resource("bank", _no_bank)], ValueError, "two resources have the name bank"),
    ],
)
def test_what_is_no_list_of_resources_is_refused(resources: Any, error: type[Exception], problem: str) -> None:  # noqa: ANN401 - mistakes
    """When the registry is made."""
    with pytest.raises(error, match=problem):
        Registry(resources=resources)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("", _no_bank), "a resource needs a name"),
        (("bank", None), "the resource bank: give a function that opens it"),
        (("bank", with_too_much), "the resource bank: its opener takes no argument, or one"),
    ],
)
def test_what_opens_nothing_is_no_resource(arguments: Any, problem: str) -> None:  # noqa: ANN401 - mistakes
    """When it is made."""
    with pytest.raises(TypeError, match=problem):
        Resource(*arguments)


def test_a_list_of_jobs_is_no_job() -> None:
    """A registry takes them one by one."""
    with pytest.raises(TypeError, match=r"is no JobSpec: write Registry\(JobSpec\(...\), JobSpec\(...\)\)"):
        Registry([JobSpec(Work, work)])  # type: ignore[arg-type] # the mistake


def test_two_jobs_of_one_name_are_both_named() -> None:
    """A project may have hundreds."""
    with pytest.raises(ValueError, match=r"job_name work: those of \S*test_spec\.Work and \S*test_spec\.Other"):
        Registry(JobSpec(Work, work), JobSpec(CreateUser, work), JobSpec(Other, work))
