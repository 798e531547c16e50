"""Reads the parts of a request: body, query, and the headers Idempotency-Key and Prefer. Knows no job."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import web
from pydantic import BaseModel, ValidationError

from arqonce.wire.keys import ID_RULE, is_job_id
from web.body import read_content
from web.problems import FieldProblem, ProblemError, invalid
from web.resources import RESOURCES

ModelT = TypeVar("ModelT", bound=BaseModel)

_UTF_8 = frozenset({"utf-8", "utf8"})
"""How clients name the only encoding of JSON (RFC 8259, 8.1)."""

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*("?)(\d{1,9})\1\s*(?=[,;]|$)', re.IGNORECASE)
_SECONDS = re.compile(r"[1-9][0-9]{0,8}")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_UNNAMEABLE = frozenset({".", ".."})
"""Ids that cannot be a path segment of a URL: clients remove such segments."""


async def read_body(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the body as JSON of the model. Of a key that is repeated, the last value counts.

    Raises:
        ProblemError: 415 for another content type, 400 if it is not JSON, 422 if it does not match the model; and those
            of ``web.body``.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in _UTF_8:
        raise ProblemError(415, "the body must be application/json, in UTF-8", headers={"Accept": "application/json"})
    settings = request.app[RESOURCES].settings
    data = await read_content(request, most=settings.max_body, within=settings.body_timeout)
    try:
        return model.model_validate_json(data.removeprefix(BOM_UTF8))
    except ValidationError as error:
        raise invalid(error) from None


def read_query(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the query as the model's fields, each at most once. Other parameters are errors.

    Raises:
        ProblemError: 400 if it is not text in UTF-8, 422 if it does not match the model.
    """
    try:
        unquote_to_bytes(request.rel_url.raw_query_string).decode()
    except UnicodeDecodeError:  # aiohttp would leave the bytes percent-encoded, as if that was the value
        raise ProblemError(400, "the query is not percent-encoded UTF-8") from None
    names = [name for name, _ in request.query.items()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ProblemError(422, code="invalid_request", errors=_errors(twice, "is given twice"))
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        has_plus = "+" in request.rel_url.raw_query_string
        raise invalid(error, hint="a + in a query is a space: write %2B for a plus" if has_plus else None) from None


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


class Terms(NamedTuple):
    """How often and until when a job may run, as ``JobClient.enqueue`` has it."""

    key: str | None
    unique_for: timedelta | None
    expires: timedelta | None


def read_terms(request: web.Request) -> Terms:
    """Return the job's key, how long it is unique, and when it expires.

    Raises:
        ProblemError: 400 if one of them is invalid, or there is a key as well as a time for uniqueness.
    """
    key, unique_for = read_key(request), _read_seconds(request, "Job-Unique-For")
    if key is not None and unique_for is not None:
        detail = "give Idempotency-Key or Job-Unique-For, not both: a key is unique for as long as receipts are kept"
        raise ProblemError(400, detail, code="invalid_key")
    return Terms(key, unique_for, _read_seconds(request, "Job-Expires-In"))


def _read_seconds(request: web.Request, name: str) -> timedelta | None:
    given = request.headers.getall(name, [])
    if not given:
        return None
    if len(given) > 1 or not _SECONDS.fullmatch(given[0].strip()):
        detail = f"{name} is a number of seconds from 1 to 999999999, without a fraction, and given once"
        raise ProblemError(400, detail, code="invalid_time")
    return timedelta(seconds=int(given[0]))


def read_wait(request: web.Request, *, longest: timedelta) -> timedelta:
    """Return how long the client prefers to wait (RFC 7240), at most ``longest``. An invalid preference is ignored."""
    match = _WAIT.search(",".join(request.headers.getall("Prefer", [])))
    return timedelta(0) if match is None else min(timedelta(seconds=int(match[2])), longest)
