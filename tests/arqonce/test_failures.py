"""The classes of failures: what each is, which codes they have, and as which of them a failure comes back."""

import inspect
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from arqonce import failures
from arqonce.client.answers import read_answer
from arqonce.failures import (
    ConflictError,
    EnqueueError,
    JobError,
    JobFailedError,
    KeyConflictError,
    QueueUnavailableError,
    RequestConflictError,
    UnknownJobError,
)
from arqonce.wire.codec import encode
from jobs.payloads import EmailTakenError, UserView


@pytest.fixture(autouse=True)
def _forget_classes() -> Iterator[None]:
    """Let the classes of one test be unknown to the others."""
    known = {code: dict(classes) for code, classes in JobFailedError._by_code.items()}
    yield
    JobFailedError._by_code.clear()
    JobFailedError._by_code.update(known)


def _class_in(module: str, code: str) -> type[JobFailedError]:
    return type("SomeError", (JobFailedError,), {"code": code, "__module__": module})


def test_an_unreachable_queue_says_nothing_about_the_job() -> None:
    """It may have been accepted: only an EnqueueError says that it was not. Conflicts have one base."""
    assert not issubclass(QueueUnavailableError, EnqueueError)
    assert issubclass(QueueUnavailableError, JobError | ConnectionError)
    assert issubclass(KeyConflictError, ConflictError | EnqueueError)
    assert issubclass(RequestConflictError, ConflictError | JobFailedError)


def test_a_code_needs_no_class() -> None:
    """The text shows it."""
    failure = JobFailedError("no user has this id", code="user_not_found")

    assert (failure.code, str(failure)) == ("user_not_found", "user_not_found: no user has this id")
    assert (EmailTakenError.code, EmailTakenError("taken").code) == ("email_taken", "email_taken")


@pytest.mark.parametrize(
    "code", [found.code for _, found in inspect.getmembers(failures, inspect.isclass) if hasattr(found, "code")]
)
def test_a_code_of_the_library_cannot_be_taken(code: str) -> None:
    """A producer would see a failure of the library as one of somebody else."""
    with pytest.raises(TypeError, match=rf"SomeError.code is '{code}', which arqonce uses itself: choose another"):
        _class_in("shop.payloads", code)


@pytest.mark.parametrize("code", ["", 7])
def test_a_code_is_a_word(code: object) -> None:
    """Said when the class is made, not when the first job fails."""
    with pytest.raises(TypeError, match=r'SomeError\.code must be a word, such as code = "email_taken"'):
        _class_in("shop.payloads", code)  # type: ignore[arg-type] # the mistake


def test_a_class_without_a_code_replaces_none() -> None:
    """It has its base's, and what comes back is of the base."""
    type("BaseOfOursError", (JobFailedError,), {})
    type("MoreError", (UnknownJobError,), {})

    assert type(JobFailedError.from_code("job_failed", "x")) is JobFailedError
    assert type(JobFailedError.from_code("unknown_job", "x")) is UnknownJobError


def test_a_failure_comes_back_as_the_class_of_its_payloads_package() -> None:
    """Two packages may use one word; if neither is the payload's, the last one counts."""
    ours, theirs = _class_in("shop.payloads", "sold_out"), _class_in("company.tickets.payloads", "sold_out")
    last = _class_in("company.trips.payloads", "sold_out")
    data = encode({"s": False, "r": JobFailedError("x", code="sold_out")})

    raised = [
        _raised_by(data, type("Answer", (BaseModel,), {"__module__": module}))
        for module in ("shop.payloads", "shop.other", "company.tickets.answers", "company.trips.payloads", "elsewhere")
    ]

    assert raised == [ours, ours, theirs, last, last]


def _raised_by(data: bytes, result_type: type[BaseModel]) -> type[JobFailedError]:
    with pytest.raises(JobFailedError) as caught:
        read_answer(data, "j", result_type)
    return type(caught.value)


def test_a_copy_of_a_package_gets_its_own_class() -> None:
    """Whoever has ``jobs`` and ``users_jobs`` in one process catches what it has imported."""
    copy = _class_in("users_jobs.payloads", "email_taken")
    data = encode({"s": False, "r": EmailTakenError("taken")})

    assert _raised_by(data, UserView) is EmailTakenError
    assert _raised_by(data, type("UserView", (BaseModel,), {"__module__": "users_jobs.payloads"})) is copy
