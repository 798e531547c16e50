"""Makes a payload of what stood in a message or on a command line, with errors for people. No database, no Redis."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from arqonce.failures import InvalidPayloadError
from arqonce.payloads import AnyPayload

_NAME_LENGTH = 60
"""How much of a field's name is shown: it may be anything that a producer has sent."""

PayloadT = TypeVar("PayloadT", bound=AnyPayload)


def read_payload(payload: type[PayloadT], args: Sequence[Any], kwargs: dict[str, Any]) -> PayloadT:
    """Validate the fields; ``args`` are the first fields in their order, as plain arq producers may pass them.

    Raises:
        InvalidPayloadError: the text names every wrong field, and the right ones; it repeats no value.
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
    """Say which fields are wrong and how, without their values."""
    problems = []
    for detail in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part)[:_NAME_LENGTH] for part in detail["loc"])
        what = detail["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {what}" if where else what)
    return "; ".join(problems)
