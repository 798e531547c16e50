"""Builds a payload from a message or a command line, with readable errors. No database, no Redis."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from arqonce.failures import InvalidPayloadError
from arqonce.payloads import AnyPayload
from arqonce.wire.problems import problems_of

PayloadT = TypeVar("PayloadT", bound=AnyPayload)


def read_payload(payload: type[PayloadT], args: Sequence[Any], kwargs: dict[str, Any]) -> PayloadT:
    """Validate the fields. ``args`` are the first fields in order: plain arq producers may pass fields by position.

    Raises:
        InvalidPayloadError: the text names every invalid field and lists the valid ones; it repeats no value.
    """
    try:
        return payload.model_validate(_name_arguments(payload, args, kwargs) | kwargs if args else kwargs)
    except ValidationError as error:
        problems = problems_of(error, payload, [*args, *kwargs.values()])
        text = f"{payload.job_name}: {problems}. Its fields are: {', '.join(payload.model_fields)}"
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
