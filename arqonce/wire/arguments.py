"""Builds a payload from a message or a command line, with readable errors. No database, no Redis."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from arqonce.failures import InvalidPayloadError
from arqonce.payloads import AnyPayload

_NAME_LENGTH = 60
"""Most characters of a field's name in errors: a producer may have sent any name."""

PayloadT = TypeVar("PayloadT", bound=AnyPayload)


def read_payload(payload: type[PayloadT], args: Sequence[Any], kwargs: dict[str, Any]) -> PayloadT:
    """Validate the fields. ``args`` are the first fields in order: plain arq producers may pass fields by position.

    Raises:
        InvalidPayloadError: the text names every invalid field and lists the valid ones; it repeats no value.
    """
    try:
        return payload.model_validate(_name_arguments(payload, args, kwargs) | kwargs if args else kwargs)
    except ValidationError as error:
        text = f"{payload.job_name}: {problems_of(error)}. Its fields are: {', '.join(payload.model_fields)}"
        raise InvalidPayloadError(text) from None  # pydantic's own text is for its users


def _name_arguments(payload: type[AnyPayload], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    fields, name = list(payload.model_fields), payload.job_name
    if len(args) > len(fields):
        raise InvalidPayloadError(
            f"{name} takes at most {len(fields)} arguments ({', '.join(fields)}), not {len(args)}"
        )
    named = dict(zip(fields, args, strict=False))
    if twice := sorted(named.keys() & kwargs.keys()):
        raise InvalidPayloadError(f"{name} was given {', '.join(twice)} both by position and by name")
    return named


def problems_of(error: ValidationError) -> str:
    """Return which fields are invalid and why, without their values."""
    problems = []
    for detail in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part)[:_NAME_LENGTH] for part in detail["loc"])
        what = detail["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {what}" if where else what)
    return "; ".join(problems)
