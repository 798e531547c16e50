"""Reads what a browser asks for, and says what is wrong with it. Every parameter is named; others are refused."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from arqonce.console.shown import plain
from arqonce.control.reasons import LONGEST_REASON, require_reason
from arqonce.wire.bounds import NAME_RULE, is_name


class PageError(Exception):
    """The page cannot be shown, or the act not be done. The texts are for people."""

    def __init__(self, status: int, title: str, *sentences: str) -> None:
        """Say with an HTTP status what is wrong, and what to do."""
        super().__init__(title)
        self.status = status
        self.title = title
        self.sentences = sentences


class Asked(BaseModel):
    """Parameters of a page or fields of a form. An empty value is as none."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, str_strip_whitespace=True)


AskedT = TypeVar("AskedT", bound=Asked)


def _require_name(value: str) -> str:
    if not is_name(value):
        raise ValueError(f"has not {NAME_RULE}")
    return value


Name = Annotated[str, AfterValidator(_require_name)]
"""The name of a queue or of a kind of jobs."""


Reason = Annotated[str, Field(max_length=LONGEST_REASON), AfterValidator(require_reason)]
"""Why something is done, for the audit."""


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no time that PostgreSQL has") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone, in UTC."""


def read_query(request: web.Request, kind: type[AskedT]) -> AskedT:
    """Return the parameters of the page.

    Raises:
        PageError: a parameter is wrong, missing, repeated, or unknown.
    """
    return _read(list(request.query.items()), kind)


async def read_form(request: web.Request, kind: type[AskedT]) -> AskedT:
    """Return the fields of the form.

    Raises:
        PageError: likewise; or it is no form in UTF-8.
    """
    is_form = request.content_type == "application/x-www-form-urlencoded" and "Content-Encoding" not in request.headers
    # Other charsets are Python's codecs, of which one takes a second for 64 KiB.
    if not is_form or (request.charset or "utf-8").lower() != "utf-8":
        raise PageError(415, "This is no form", "Use the form of the page.")
    try:
        fields = await request.post()
    except (ValueError, web.RequestPayloadError):  # no UTF-8, or chunks without sizes
        raise PageError(400, "This is no form", "Use the form of the page.") from None
    return _read([(name, value) for name, value in fields.items() if isinstance(value, str)], kind)


def _read(pairs: Sequence[tuple[str, str]], kind: type[AskedT]) -> AskedT:
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise PageError(400, "This address cannot be read", f"{plain(name, 50)} is there more than once.")
        if "\0" in value:  # PostgreSQL has no such text
            raise PageError(400, "This address cannot be read", f"{plain(name, 50)}: has the character U+0000.")
        if value.strip():
            given[name] = value
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise PageError(400, "This address cannot be read", *(_explain(one, given) for one in error.errors())) from None


def _explain(detail: ErrorDetails, given: Mapping[str, object]) -> str:
    name = plain(detail["loc"][0] if detail["loc"] else "it", 50)
    match detail["type"]:
        case "extra_forbidden":
            return f"{name}: there is no such parameter. Leave it out."
        case "missing":
            return f"{name}: is missing."
        case _:
            said = detail["msg"].removeprefix("Value error, ")
            value = given.get(str(detail["loc"][0])) if detail["loc"] else None
            return f"{name}: {plain(value, 60)}: {said[:1].lower()}{said[1:]}."
