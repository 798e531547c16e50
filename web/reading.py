"""Reads the parts of a request: body, query, and the headers Idempotency-Key and Prefer. Knows no job."""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from arqonce.wire.keys import ID_RULE, is_job_id
from web.problems import FieldProblem, ProblemError, invalid

ModelT = TypeVar("ModelT", bound=BaseModel)

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*("?)(\d{1,9})\1\s*(?=[,;]|$)', re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_UNNAMEABLE = frozenset({".", ".."})
"""Ids that cannot be a path segment of a URL: clients remove such segments."""


async def read_body(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the body as JSON of the model.

    Raises:
        ProblemError: 415 for another content type, 400 if it is not JSON, 422 if it does not match the model.
        HTTPRequestEntityTooLarge: raised by aiohttp while reading.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise ProblemError(415, "the body must be application/json", headers={"Accept": "application/json"})
    try:
        data = await request.read()
    except web.RequestPayloadError:
        headers = {"Connection": "close"}  # aiohttp closes the connection without this header
        raise ProblemError(400, "the body cannot be read", code="malformed_body", headers=headers) from None
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise invalid(error) from None


def read_query(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the query as the model's fields, each at most once. Other parameters are errors.

    Raises:
        ProblemError: 422 if the query does not match the model.
    """
    names = [name for name, _ in request.query.items()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ProblemError(422, code="invalid_request", errors=_errors(twice, "is given twice"))
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid(error) from None


def _errors(names: Iterable[str], detail: str) -> list[FieldProblem]:
    return [FieldProblem(pointer=f"#/{name.encode(errors='replace').decode()}", detail=detail) for name in names]


def read_key(request: web.Request) -> str | None:
    """Return the idempotency key, which becomes the job's id; ``None`` if there is none.

    It may be quoted, as a string of RFC 9651 (as in the IETF's draft), or bare, as in many services.

    Raises:
        ProblemError: 400 if it is not a valid job id.
    """
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    key = given[0].strip()
    if match := _QUOTED.fullmatch(key):
        key = re.sub(r"\\(.)", r"\1", match[1])
    if len(given) > 1 or not is_job_id(key) or key in _UNNAMEABLE:
        detail = f"the Idempotency-Key becomes the job's id: {ID_RULE}, not . or .., and given once"
        raise ProblemError(400, detail, code="invalid_key")
    return key


def read_wait(request: web.Request, *, longest: timedelta) -> timedelta:
    """Return how long the client prefers to wait (RFC 7240), at most ``longest``. An invalid preference is ignored."""
    match = _WAIT.search(",".join(request.headers.getall("Prefer", [])))
    return timedelta(0) if match is None else min(timedelta(seconds=int(match[2])), longest)
