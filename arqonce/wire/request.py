"""What a request is: the message that a payload becomes, and the hash by which it is known again.

Whatever a producer sends, the worker gets: a payload that would not come back equal from its own message is refused.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from arqonce.failures import InvalidMessageError, MessageTooLargeError
from arqonce.payloads import AnyPayload, Payload
from arqonce.wire.bounds import NAME_RULE, is_name, may_be_unfit, unfit_field
from arqonce.wire.codec import encode
from arqonce.wire.keys import type_of
from arqonce.wire.round_trip import CURE, Traits, may_change, read_back, traits_of
from arqonce.wire.trace import NO_TRACE, Carrier


def write_job(
    payload: AnyPayload,
    *,
    enqueued_ms: int,
    expires_ms: int | None = None,
    parent: str | None = None,
    trace: Carrier = NO_TRACE,
) -> bytes:
    """Write arq's message for a job. Fields that were not set are left out, so that the worker's defaults apply.

    A job that expires has the field ``xt``, a follow-up ``p``, the id of the job whose handler promised it, and a job
    that is part of a trace ``tc``, its context. Plain arq workers and older ones ignore them.

    Raises:
        InvalidMessageError: it is too large, or the worker would get something else; the text names the fields and the
            cure, and no value.
    """
    traits = traits_of(type(payload))
    fields = _dumped(payload, traits)
    if may_change(payload):
        _require_same(payload, fields, traits)
    message: dict[str, Any] = {"t": None, "f": payload.job_name, "a": [], "k": fields, "et": enqueued_ms}
    if expires_ms is not None:
        message["xt"] = expires_ms
    if parent is not None:
        message["p"] = parent
    if trace:
        message["tc"] = trace
    try:
        data = encode(message)
    except MessageTooLargeError:
        raise
    except InvalidMessageError as error:
        raise _unfit(payload, fields) or error from None
    if may_be_unfit(data) and (unfit := _unfit(payload, fields)):
        raise unfit
    return data


def _unfit(payload: AnyPayload, fields: Mapping[str, object]) -> InvalidMessageError | None:
    found = unfit_field(fields)
    return None if found is None else InvalidMessageError(f"{type(payload).__name__}.{found[0]:.60} {found[1]}")


def _dumped(payload: AnyPayload, traits: Traits) -> dict[str, Any]:
    try:
        if traits.has_inner_factories:
            return payload.model_dump(mode="json")
        fields = payload.model_dump(mode="json", exclude_unset=True)
        if made := traits.factories - payload.model_fields_set:
            fields |= payload.model_dump(mode="json", include=set(made))
    except Exception:  # noqa: BLE001 - a serializer of the application's may raise anything, with values in its text
        guilty = [name for name in type(payload).model_fields if not _can_be_dumped(payload, name)]
        raise _not_same(payload, guilty) from None
    return fields


def _can_be_dumped(payload: AnyPayload, field: str) -> bool:
    try:
        payload.model_dump(mode="json", include={field})
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _require_same(payload: AnyPayload, fields: dict[str, Any], traits: Traits) -> None:
    """Read the message as the worker does, and compare."""
    read = read_back(payload, fields)
    if isinstance(read, list):
        raise _not_same(payload, read)
    if traits.is_unordered and request_hash(read) != request_hash(payload):
        raise _not_same(payload, list(type(payload).model_fields))


def _not_same(payload: AnyPayload, fields: Sequence[str]) -> InvalidMessageError:
    name = type(payload).__name__
    named = ", ".join(f"{name}.{field[:60]}" for field in fields) or name
    if unfit := _unfit(payload, {field: vars(payload).get(field) for field in fields or type(payload).model_fields}):
        return unfit
    return InvalidMessageError(f"the worker would not get what is sent in {named}: {CURE}")


def request_hash(payload: AnyPayload) -> bytes:
    """Return a hash that identifies a request among those of the same kind of job.

    Fields with their default value are left out, so a field that a later version adds does not change the hash of a
    queued job. Nor does a renamed field, if its ``serialization_alias`` is the old name. The order of sets and mappings
    does not count: equal payloads have equal hashes, in every process. But Decimals count by their digits, 1.0 is not
    1.00, and times by their offset.
    """
    if not traits_of(type(payload)).is_unordered:
        return hashlib.sha256(payload.model_dump_json(exclude_defaults=True, by_alias=True).encode()).digest()
    dumped = payload.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    return hashlib.sha256(to_json(_in_order(payload, dumped))).digest()


def _in_order(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - any value of a payload, and how it is written
    """Return what is written with sets and mappings in the order of their texts."""
    if isinstance(value, BaseModel) and isinstance(dumped, dict):
        fields = type(value).model_fields
        names = {field.serialization_alias or field.alias or name: name for name, field in fields.items()}
        return {key: _in_order(vars(value).get(str(names.get(key, key))), part) for key, part in dumped.items()}
    if isinstance(value, Mapping) and isinstance(dumped, dict) and len(value) == len(dumped):
        parts = [
            (key, _in_order(part, written)) for part, (key, written) in zip(value.values(), dumped.items(), strict=True)
        ]
        return dict(sorted(parts, key=lambda part: part[0]))
    if isinstance(dumped, list) and isinstance(value, set | frozenset):
        return sorted(dumped, key=to_json)
    if isinstance(dumped, list) and isinstance(value, list | tuple) and len(value) == len(dumped):
        return [_in_order(part, written) for part, written in zip(value, dumped, strict=True)]
    if isinstance(dumped, dict):  # a dataclass, or what a serializer has made
        inner = vars(value) if hasattr(value, "__dict__") else {}
        return {key: _in_order(inner.get(key), part) for key, part in sorted(dumped.items())}
    return dumped


def unique_name(payload: AnyPayload, queue: str) -> bytes:
    """Return the name of the request within its queue: equal requests of one kind for one queue have the same."""
    return unique_name_of(queue, payload.job_name, request_hash(payload))


def unique_name_of(queue: str, job_name: str, request: bytes) -> bytes:
    """Return the name of the request with this hash."""
    return hashlib.sha256(b"\0".join([queue.encode(), job_name.encode(), request])).digest()


def request_tag(request: bytes) -> str:
    """Return the tag of the request with this hash. It is stored with the result and the job's name.

    Long enough to distinguish two requests that share a key by mistake, too short to reconstruct the request.
    """
    return request[:4].hex()


def payload_tag(payload: AnyPayload) -> str:
    """Return the tag of the request for this payload."""
    return request_tag(request_hash(payload))


def request_mark(job_name: object, tag: str) -> str:
    """Return a mark that distinguishes a request from others with its key: another kind of job, or other fields."""
    return f"{job_name} {tag}"


def require_payload(value: object) -> None:
    """Check that the value to enqueue is a payload.

    Raises:
        InvalidMessageError: it is not. The text names the cure, and does not repeat the value.
    """
    if not isinstance(value, Payload):
        message = f"a job is the instance of a payload, such as CreateUser(name=...); this is {type_of(value)}"
        raise InvalidMessageError(message)
    if not hasattr(value, "job_name"):
        raise InvalidMessageError(f"{type(value).__name__} has no job_name: give its class the job's name on the wire")
    if not is_name(value.job_name):
        raise InvalidMessageError(f"{type(value).__name__}.job_name must be {NAME_RULE}")


def require_kind(value: object) -> None:
    """Check that the value is a payload class.

    Raises:
        InvalidMessageError: it is not. The text names the cure, and does not repeat the value.
    """
    if not (isinstance(value, type) and issubclass(value, Payload)):
        message = f"a kind of job is the class of a payload, such as CreateUser; this is {type_of(value)}"
        raise InvalidMessageError(message)
