"""A line of the registry that cannot work is refused when it is written, with its cure."""

from functools import partial, wraps
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload, Result
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


class Worker:
    """A handler with a state."""

    async def __call__(self, _session: AsyncSession, _payload: Work) -> Done:
        """Do it."""
        return Done()


@pytest.mark.parametrize(
    ("arguments", "options", "problem"),
    [
        ((Work, work_at_once), {}, "the handler of work, work_at_once, is no coroutine function: write async def"),
        ((Work, None), {}, "the handler of work, None, is no coroutine function"),
        ((Work, work), {"batch": work_at_once}, "the batch of work, work_at_once, is no coroutine function"),
        ((Work, work), {"batch": work, "max_batch": 0}, "the job work: max_batch and max_attempts are 1 or more"),
        ((Work, work), {"max_attempts": "3"}, "the job work: max_batch and max_attempts are 1 or more"),
        ((Work, work), {"deadline": 5}, "the job work: deadline is a timedelta"),
        ((Work, work), {"former_names": "old"}, "the job work: former_names is a tuple of names"),
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


def test_two_jobs_of_one_name_are_both_named() -> None:
    """A project may have hundreds."""
    with pytest.raises(ValueError, match=r"job_name work: those of \S*test_spec\.Work and \S*test_spec\.Other"):
        Registry(JobSpec(Work, work), JobSpec(CreateUser, work), JobSpec(Other, work))
