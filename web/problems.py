"""Converts all errors, including the database's and aiohttp's, to problem details (RFC 9457). Owns their statuses.

``type`` is ``about:blank``: the status identifies the kind of problem. Problems that a program may need to distinguish
further have a ``code``. No text repeats the request.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from arqonce import InvalidMessageError, KeyConflictError, MessageTooLargeError, QueueUnavailableError
from arqonce.connection.redis import has_answered
from arqonce.database.faults import is_transient, why_not_written, why_unavailable
from arqonce.wire.problems import MOST_READ
from web.outages import POSTGRESQL, REDIS, Outages

PROBLEM_JSON = "application/problem+json"

RETRY_AFTER = 2
"""Value of Retry-After in a 503, in seconds: about the time that a server needs to restart."""

_DETAILS = {
    404: "there is no such route: /openapi.json describes all that there are",
    405: "this route has another method: see Allow, and /openapi.json",
}
"""Details that aiohttp's own errors lack, by status."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.problems")


class FieldProblem(BaseModel):
    """One invalid part of the request."""

    pointer: str
    """A JSON pointer into the body, or ``#/`` and the name of a parameter."""

    detail: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    code: str | None = None
    errors: list[FieldProblem] | None = None


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: Sequence[FieldProblem] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code or ''}".strip())
        self.status = status
        self._detail, self._code, self._headers = detail, code, headers
        self._errors = None if errors is None else list(errors)

    def response(self) -> web.Response:
        """Return a new response: a response can be sent only once."""
        problem = Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self._detail,
            code=self._code,
            errors=self._errors,
        )
        body = problem.model_dump_json(exclude_none=True).encode()
        return web.Response(status=self.status, body=body, content_type=PROBLEM_JSON, headers=self._headers)


_MOST_ERRORS = 2000
"""Most errors of one answer: two for each user of a batch. A body has room for a hundred thousand unknown fields."""


def invalid(error: ValidationError, *, hint: str | None = None) -> ProblemError:
    """Return the problem of a request that does not match its model: 400 if it is not JSON, else 422 with the hint."""
    is_told = (count := error.error_count()) <= MOST_READ
    details = error.errors(include_url=False, include_context=False, include_input=False) if is_told else []
    if any(detail["type"] == "json_invalid" for detail in details):
        return ProblemError(400, "the body is not JSON", code="malformed_json")
    errors = [
        FieldProblem(pointer=_pointer(detail["loc"]), detail=detail["msg"].removeprefix("Value error, "))
        for detail in details[:_MOST_ERRORS]
    ]
    more = f", and {count - len(errors):,} errors are left out" if count > len(errors) else ""
    detail = f"the request does not fit its description{more}"
    return ProblemError(422, f"{detail}; {hint}" if hint else detail, code="invalid_request", errors=errors)


def _pointer(location: tuple[int | str, ...]) -> str:
    # A surrogate could not be encoded in the response.
    parts = (str(part).encode(errors="replace").decode().replace("~", "~0").replace("/", "~1") for part in location)
    return "#" + "".join(f"/{part}" for part in parts)


def unavailable(detail: str, code: str) -> ProblemError:
    """Return a 503, which asks the client to try again later."""
    return ProblemError(503, detail, code=code, headers={"Retry-After": str(RETRY_AFTER)})


def answering_with_problems(outages: Outages) -> Middleware:
    """Return a middleware that converts every exception of the handler to a problem."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - the only such place: the client gets a problem, the log the error
            return _problem(error, outages).response()

    return answer


def _problem(error: Exception, outages: Outages) -> ProblemError:
    match error:
        case ProblemError():
            return error
        case web.HTTPException():
            return problem_of_aiohttp(error)
        case KeyConflictError():
            return key_conflict()
        case MessageTooLargeError():  # models do not check the total size
            return ProblemError(413, "the job would be too large: split it", code="job_too_large")
        case InvalidMessageError():  # its text repeats no value
            return ProblemError(422, str(error), code="invalid_request")
    return _fault(error, outages)


def _fault(error: Exception, outages: Outages) -> ProblemError:
    if isinstance(error, QueueUnavailableError):
        return _queue_unavailable(error, outages)
    if reason := why_not_written(error):
        outages.note(POSTGRESQL, "cannot be written to", reason)
        return unavailable("the database cannot be written to", "database_unavailable")
    if is_transient(error):
        outages.note(POSTGRESQL, "is gone or slow", why_unavailable(error))
        return unavailable("the database cannot be reached or is too busy", "database_unavailable")
    _log.error("request failed", exc_info=error)
    return ProblemError(500, "this is our fault, and it is in our log")


def _queue_unavailable(error: QueueUnavailableError, outages: Outages) -> ProblemError:
    if has_answered(error.__cause__):
        outages.note(REDIS, "refuses commands", str(error))
        return unavailable("the queue does not accept jobs", "queue_unavailable")
    outages.note(REDIS, "is gone", str(error))
    return unavailable("the queue cannot be reached", "queue_unavailable")


def key_conflict() -> ProblemError:
    """Return the problem of a key that belongs to another request: 422.

    The IETF's draft (draft-ietf-httpapi-idempotency-key-header, 2.7) requires this status for another payload. Its 409,
    for a request still in progress, does not occur here: the same request is accepted again.
    """
    return ProblemError(
        422, "the Idempotency-Key was used for another request: give each request its own", code="key_conflict"
    )


def problem_of_aiohttp(error: web.HTTPException) -> ProblemError:
    """Convert aiohttp's own error to a problem, with headers such as Allow, and without its text."""
    dropped = {"content-type", "content-length"}
    headers = {name: value for name, value in error.headers.items() if name.lower() not in dropped}
    return ProblemError(error.status, _DETAILS.get(error.status), headers=headers)
