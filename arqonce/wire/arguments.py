"""Builds a payload from a message or a command line, with readable errors. No database, no Redis."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from arqonce.failures import InvalidPayloadError
from arqonce.payloads import AnyPayload
from arqonce.wire.bounds import unfit_field
from arqonce.wire.problems import problems_of
from arqonce.wire.round_trip import traits_of

PayloadT = TypeVar("PayloadT", bound=AnyPayload)


def read_payload(payload: type[PayloadT], args: Sequence[Any], kwargs: dict[str, Any]) -> PayloadT:
    """Validate the fields. ``args`` are the first fields in order: plain arq producers may pass fields by position.

    Raises:
        InvalidPayloadError: the text names every invalid field and lists the valid ones; it repeats no value.
    """
    fields = _name_arguments(payload, args, kwargs) | kwargs if args else kwargs
    if traits_of(payload).has_floats and _may_be_infinite(fields) and (unfit := unfit_field(fields)):
        raise InvalidPayloadError(f"{payload.job_name}: {unfit[0]:.60} {unfit[1]}")
    try:
        return payload.model_validate(fields)
    except ValidationError as error:
        problems = problems_of(error, payload, [*args, *kwargs.values()])
    text = f"{payload.job_name}: {problems}. Its fields are: {', '.join(payload.model_fields)}"
    raise InvalidPayloadError(text)  # without pydantic's error, which may have a million parts


def _may_be_infinite(fields: dict[str, Any]) -> bool:
    """Return whether there may be an infinite number, such as 1e400, which is JSON."""
    try:
        return b"Infinity" in to_json(fields, inf_nan_mode="constants")
    except ValueError:
        return False


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
