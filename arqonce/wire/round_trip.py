"""Tells whether a payload or a result comes back equal from its own JSON. What does not is refused, not sent.

Nothing says of an instance whether it was validated: ``model_construct`` and ``model_copy`` validate nothing, and lists
can be changed afterwards. So each payload is read back as the worker reads it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from arqonce.wire.problems import problems_of

ModelT = TypeVar("ModelT", bound=BaseModel)

_CURE = (
    "give it a type that JSON carries (str, int, bool, datetime, UUID, Decimal, Enum, list, tuple, set, dict, models "
    "of these, Base64Bytes; of floats the finite ones; none in strict mode; in unions none that look alike), a name "
    "under which it is read, too, or a field_serializer and a field_validator that undo each other"
)

_CLASSES = 10_000
"""Of so many classes it is remembered what they are made of."""

_PLAIN = frozenset({
    "str", "int", "bool", "none", "date", "time", "datetime", "timedelta", "uuid", "decimal", "enum", "literal",
    "nullable", "default", "list", "model", "model-fields", "model-field", "definitions", "definition-ref",
})  # fmt: skip
"""Types of pydantic's core schema whose values come back equal, whatever they are."""

_UNORDERED = frozenset({"set", "frozenset", "dict", "any", "typed-dict", "dataclass", "dataclass-args"})
"""Types whose values may have no order, or one that says nothing."""


class Traits(NamedTuple):
    """What a class is made of."""

    is_plain: bool
    """Every validated value comes back equal."""

    is_unordered: bool
    """Two equal values may be written differently."""

    is_ambiguous: bool
    """A value may come back equal and be written differently: 5, sent as the Decimal of an ``int | Decimal``."""

    has_floats: bool
    """JSON may change a number."""

    factories: frozenset[str]
    """Fields whose default is made anew each time: the worker would make another."""

    has_inner_factories: bool
    """Whether a model inside has such fields."""

    models: tuple[type, ...]
    """The classes of models inside. Of an instance of a subclass, only the fields of the class are sent."""

    has_times: bool
    """Whether there are times of day. Their text has no seconds of an offset from UTC, which zones had until 1900."""

    size: int
    """How many fields it has."""

    changes_input: bool
    """Whether a validated value may be no valid input."""


def may_change(value: BaseModel) -> bool:
    """Return whether a result may not come back equal, though all its values are of the types of its fields."""
    traits = traits_of(type(value))
    if len(vars(value)) < traits.size:
        return True  # some are missing
    if not traits.is_plain or (traits.models and any(model.__subclasses__() for model in traits.models)):
        return True
    return traits.has_times and any(map(_has_odd_offset, vars(value).values()))


def _has_odd_offset(value: object) -> bool:
    if isinstance(value, str | int | None):
        return False  # as most fields
    if isinstance(value, datetime | time):
        return value.tzinfo is not UTC and bool((value.utcoffset() or timedelta(0)) % timedelta(minutes=1))
    if isinstance(value, BaseModel):
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, list) and any(map(_has_odd_offset, value))


@lru_cache(maxsize=_CLASSES)
def traits_of(kind: type[BaseModel]) -> Traits:
    """Return what a payload's or a result's class is made of."""
    types: set[str] = set()
    _collect(kind.__pydantic_core_schema__, types)
    factories = {name for name, field in kind.model_fields.items() if field.default_factory is not None}
    return Traits(
        is_plain=types <= _PLAIN,
        is_unordered=bool(types & _UNORDERED) or "serialization" in types,
        is_ambiguous=bool(types & (_UNORDERED | {"union", "tagged-union", "serialization"})),
        has_floats=bool(types & {"float", "any", "complex", "listed values"}),
        factories=frozenset(factories),
        has_inner_factories="default_factory" in types and _has_inner_factories(kind),
        has_times=bool(types & {"datetime", "time"}),
        models=tuple(_models_in(kind.__pydantic_core_schema__) - {kind}),
        size=len(kind.model_fields),
        changes_input=not types.isdisjoint({"json", "function-before", "function-plain", "function-wrap"}),
    )


_NOTED = (
    "serialization",
    "default_factory",
    "serialization_exclude",
    "serialization_exclude_if",
    "strict",
    "validation_alias",
    "serialize_by_alias",
    "custom_init",
    "post_init",
    "ser_json_temporal",
    "ser_json_timedelta",
)
"""Keys of core schemas that say that a value may not come back equal."""


def _models_in(schema: Any) -> set[type]:  # noqa: ANN401 - as below
    if isinstance(schema, Mapping):
        own = {schema["cls"]} if schema.get("type") == "model" else set()
        return own.union(*(_models_in(part) for name, part in schema.items() if name not in {"metadata", "cls"}))
    if isinstance(schema, list | tuple):
        return set().union(*map(_models_in, schema))
    return set()


def _collect(schema: Any, found: set[str]) -> None:  # noqa: ANN401 - a schema, or a part of one
    """Add all types of a core schema, and which other things it has that matter."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("type"), str):
            found.add(schema["type"])
        found |= {name for name in _NOTED if schema.get(name)}
        listed = [*schema.get("members", ()), *schema.get("expected", ())]
        if not all(_is_in_json(one.value if isinstance(one, Enum) else one) for one in listed):
            found.add("listed values")
        found |= {"extra"} if "allow" in {schema.get("extra_behavior"), schema.get("extra_fields_behavior")} else set()
        found |= {"computed"} if schema.get("computed_fields") else set()
        for name, part in schema.items():
            if name not in {"metadata", "serialization", "type"}:
                _collect(part, found)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _collect(part, found)


def _is_in_json(value: object) -> bool:
    """Return whether a value of an enum or a literal is written as it is, and not as a text, or as if it were none."""
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int)


def _has_inner_factories(kind: type[BaseModel]) -> bool:
    found: set[str] = set()
    for name, part in _fields_schema(kind.__pydantic_core_schema__):
        inner = part.get("schema", {})
        is_own = kind.model_fields[name].default_factory is not None
        _collect(inner.get("schema", {}) if is_own else inner, found)
    return "default_factory" in found


def _fields_schema(schema: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:  # noqa: ANN401 - as above
    """Yield the fields of the outermost model."""
    while isinstance(schema, Mapping):
        if schema.get("type") == "model-fields":
            yield from schema["fields"].items()
            return
        schema = schema.get("schema")


def read_back(sent: ModelT, fields: dict[str, Any]) -> ModelT | list[str]:
    """Return what the other side reads, or the names of the fields that differ there; none if that is not known."""
    kind = type(sent)
    try:
        read = kind.model_validate(_after_json(fields) if traits_of(kind).has_floats else fields)
        # Not by getattr, which warns of deprecated fields.
        changed = [name for name in kind.model_fields if not _is_same(vars(read).get(name), vars(sent).get(name))]
    except ValidationError as error:
        return sorted({str(detail["loc"][0]) for detail in error.errors() if detail["loc"]})
    except Exception:  # noqa: BLE001 - a validator or a comparison of the application's may raise anything
        return []
    more, others = sent.model_extra or {}, read.model_extra or {}
    changed += [name for name in more if not (name in others and _is_same(others[name], more[name]))]
    return changed or read


def not_dumped(sent: BaseModel) -> list[str]:
    """Return the fields that have no form in JSON, or whose serializer fails."""
    return [name for name in type(sent).model_fields if not _can_be_dumped(sent, name, warnings=False)]


def _can_be_dumped(sent: BaseModel, field: str, *, warnings: Literal["error"] | bool) -> bool:
    try:
        sent.model_dump(mode="json", include={field}, warnings=warnings)
    except Exception:  # noqa: BLE001 - a serializer of the application's may raise anything
        return False
    return True


def why_changed(sent: BaseModel, changed: Sequence[str], loss: str) -> str:
    """Say why an instance would not come back equal, with the cure, and without its values.

    ``loss`` says what is lost, as in "the worker would not get what is sent in".
    """
    kind = type(sent)
    if problems := _problems_itself(sent, changed):
        cure = f"make it with {kind.__name__}(...): model_construct, model_copy and changes in place check nothing"
        return f"{kind.__name__}.{problems}: {cure}"
    named = ", ".join(f"{kind.__name__}.{name[:60]}" for name in changed) or kind.__name__
    is_computed = not kind.model_computed_fields.keys().isdisjoint(changed)
    return f"{loss} {named}: {'make it a property without computed_field' if is_computed else _CURE}"


def _problems_itself(sent: BaseModel, changed: Sequence[str]) -> str | None:
    """Return what is invalid in an instance that was not validated; ``None`` if nothing is, or it is not known."""
    kind = type(sent)
    own = {name: part for name, part in vars(sent).items() if name in kind.model_fields}
    if traits_of(kind).changes_input:
        return None
    try:
        kind.model_validate(own, by_name=True)
    except ValidationError as error:
        found = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        return problems_of(error, kind, list(own.values())) if found and found <= set(changed) else None
    except Exception:  # noqa: BLE001 - a validator of the application's may raise anything
        return None
    for name in own.keys() & set(changed):
        if _can_be_dumped(sent, name, warnings=False) and not _can_be_dumped(sent, name, warnings="error"):
            return f"{name} has a value of another type"
    return None


def _is_same(read: Any, sent: Any) -> bool:  # noqa: ANN401 - any value
    """Compare. In hours that a zone has twice, or not at all, Python calls equal times of different zones unequal."""
    if read == sent or type(read) is not type(sent):
        return bool(read == sent)
    if isinstance(read, datetime):
        same_time = read.replace(tzinfo=None) == sent.replace(tzinfo=None, fold=0)
        return bool(same_time and read.utcoffset() == sent.utcoffset())
    if isinstance(read, list | tuple):
        return len(read) == len(sent) and all(map(_is_same, read, sent))
    if isinstance(read, dict):
        return read.keys() == sent.keys() and all(_is_same(read[key], sent[key]) for key in read)
    if not isinstance(read, BaseModel) or read.model_extra != sent.model_extra:
        return False
    return read.__pydantic_private__ == sent.__pydantic_private__ and _is_same(vars(read), vars(sent))


def _after_json(fields: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
    """Return what the fields are behind JSON, which has neither infinities nor NaN."""
    return from_json(to_json(fields, inf_nan_mode="null"))
