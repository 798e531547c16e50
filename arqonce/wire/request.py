"""What a request is: the message that a payload becomes, and the hash by which it is known again.

Whatever a producer sends, the worker gets: a payload that would not come back equal from its own message is refused.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from itertools import repeat
from typing import Any, Literal

from pydantic import BaseModel, RootModel
from pydantic_core import to_json, to_jsonable_python

from arqonce.failures import InvalidMessageError, MessageTooLargeError
from arqonce.payloads import AnyPayload, Payload
from arqonce.wire.bounds import NAME_RULE, is_name, may_be_unfit, unfit_field
from arqonce.wire.codec import encode
from arqonce.wire.keys import type_of
from arqonce.wire.round_trip import Traits, not_dumped, read_back, traits_of, why_changed
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
    fields = _carried(payload)
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


def _carried(payload: AnyPayload) -> dict[str, Any]:
    """Return the fields of the message, read as the worker reads them, and compared."""
    traits = traits_of(type(payload))
    try:
        fields, is_ambiguous = _dumped(payload, traits, warnings="error"), traits.is_ambiguous
    except Exception:  # noqa: BLE001 - a serializer of the application's may raise anything, with values in its text
        # Or something is no value of its field's type, which validation would have refused.
        fields, is_ambiguous = _dumped_somehow(payload, traits), True
    whole: set[str] = set()
    while isinstance(read := read_back(payload, fields), list):
        if whole.issuperset(read):
            raise _not_same(payload, read)
        # A default that was changed in its place, or the tag of a union that is a default, counts as not set. What
        # cannot be read hides what is read otherwise: so once more.
        fields, whole = fields | _dumped_whole(payload, read), whole.union(read)
    if is_ambiguous and (rewritten := _rewritten(payload, read)):
        raise _not_same(payload, rewritten)
    return fields


def _dumped_whole(payload: AnyPayload, names: list[str]) -> dict[str, Any]:
    try:
        return payload.model_dump(mode="json", include=set(names), warnings=False)
    except Exception:  # noqa: BLE001 - as below
        raise _not_same(payload, names) from None


def _dumped(payload: AnyPayload, traits: Traits, *, warnings: Literal["error"] | bool) -> dict[str, Any]:
    if traits.has_inner_factories:
        return payload.model_dump(mode="json", warnings=warnings)
    fields = payload.model_dump(mode="json", exclude_unset=True, warnings=warnings)
    if made := traits.factories - payload.model_fields_set:
        fields |= payload.model_dump(mode="json", include=set(made), warnings=warnings)
    return fields


def _dumped_somehow(payload: AnyPayload, traits: Traits) -> dict[str, Any]:
    try:
        return _dumped(payload, traits, warnings=False)
    except Exception:  # noqa: BLE001 - as above
        raise _not_same(payload, not_dumped(payload)) from None


def _rewritten(payload: AnyPayload, read: AnyPayload) -> list[str]:
    """Return the fields by which the request that was read has another hash."""
    try:
        if request_hash(read) == request_hash(payload):
            return []
    except Exception:  # noqa: BLE001 - as above
        return list(type(payload).model_fields)
    ours, theirs = (one.model_dump(mode="json", by_alias=False, warnings=False) for one in (payload, read))
    return [name for name in ours if to_json(ours[name]) != to_json(theirs.get(name))]


def _not_same(payload: AnyPayload, changed: Sequence[str]) -> InvalidMessageError:
    if unfit := _unfit(payload, {name: vars(payload).get(name) for name in changed or type(payload).model_fields}):
        return unfit
    return InvalidMessageError(why_changed(payload, changed, "the worker would not get what is sent in"))


def request_hash(payload: AnyPayload) -> bytes:
    """Return a hash that identifies a request among those of the same kind of job.

    Fields with their default value are left out, so a field that a later version adds does not change the hash of a
    queued job. Nor does a renamed field, if its ``serialization_alias`` is the old name. The order of sets and mappings
    does not count: equal payloads have equal hashes, in every process. But Decimals count by their digits, 1.0 is not
    1.00, and times by their offset.
    """
    if not traits_of(type(payload)).is_unordered:
        text = payload.model_dump_json(exclude_defaults=True, by_alias=True, warnings=False)
        return hashlib.sha256(text.encode()).digest()
    dumped = payload.model_dump(mode="json", exclude_defaults=True, by_alias=True, warnings=False)
    return hashlib.sha256(to_json(_fields_in_order(payload, dumped))).digest()


def json_in_order(value: object) -> bytes:
    """Return any value as JSON that is the same in every process."""
    return to_json(_in_order(value, to_jsonable_python(value)))


def _fields_in_order(payload: AnyPayload, dumped: dict[str, Any]) -> dict[str, Any]:
    """Return the same as ``_in_order``, in a fifth of the time for fields whose values are JSON already."""
    given = _inner(payload)
    plain = {name: part for name, part in dumped.items() if isinstance(part, dict | list) and given.get(name) == part}
    ordered: dict[str, Any] = _in_order(payload, dumped | dict.fromkeys(plain))
    return ordered | {name: json.loads(json.dumps(part, sort_keys=True)) for name, part in plain.items()}


def _in_order(value: Any, dumped: Any) -> Any:  # noqa: ANN401 - any value of a payload, and how it is written
    """Return what is written with sets and mappings in the order of their texts."""
    if isinstance(value, RootModel):
        return _in_order(value.root, dumped)
    if isinstance(dumped, list):
        is_written = isinstance(value, Collection) and len(value) == len(dumped)
        items = [_in_order(*pair) for pair in zip(value if is_written else repeat(None), dumped, strict=is_written)]
        return sorted(items, key=to_json) if isinstance(value, AbstractSet) else items
    if not isinstance(dumped, dict):
        return dumped
    if isinstance(value, Mapping) and len(value) == len(dumped):
        written = zip(value.values(), dumped.items(), strict=True)
        return dict(sorted((key, _in_order(part, text)) for part, (key, text) in written))
    inner = _inner(value)
    parts = {key: _in_order(inner.get(key), part) for key, part in dumped.items()}
    return parts if isinstance(value, BaseModel) else dict(sorted(parts.items()))


def _inner(value: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    """Return the values of a model or a dataclass by the names with which they are written."""
    inner: dict[str, Any] = {}
    if hasattr(value, "__dict__"):
        inner = vars(value) | (getattr(value, "__pydantic_extra__", None) or {})
    elif is_dataclass(value):  # with slots
        inner = {part.name: getattr(value, part.name) for part in fields_of(value)}
    known = getattr(type(value), "__pydantic_fields__", {})
    aliases = {name: field.serialization_alias or field.alias or name for name, field in known.items()}
    return {aliases.get(name, name): part for name, part in inner.items()}


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
