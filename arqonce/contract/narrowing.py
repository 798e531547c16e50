"""Checks whether one JSON Schema accepts everything that another accepts; if not, says where and why. Knows no job.

It compares keyword by keyword. A change that it cannot judge (a changed pattern, an unknown keyword) counts as
narrower: a person can dismiss a false alarm, but a missed change breaks queued jobs.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from arqonce.contract.aliases import ALIASES, fields_by_name

Schema = dict[str, Any]

_ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator",
    "$schema", "$id", "$comment", "$defs", ALIASES,
})  # fmt: skip
"""Keywords that reject no value."""

_CEILINGS = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_FLOORS = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_HANDLED = frozenset({"type", "const", "enum", "properties", "required", "additionalProperties", "items", "anyOf",
                      "oneOf"})  # fmt: skip

_SIZES = frozenset({"minLength", "minItems", "minProperties"})
"""Lower limits that have no effect at 0."""

_MISSING = object()


class Narrowing(NamedTuple):
    """One place where a schema became narrower, and why."""

    path: str
    text: str


def request_narrowings(old: Schema, new: Schema, *, path: str, roots: tuple[Schema, Schema]) -> list[Narrowing]:
    """Return why ``new`` may reject a message that ``old`` accepts. ``roots`` resolve the ``$ref`` of each."""
    return list(_Comparison(*roots, is_answer=False).compare(path, old, new))


def answer_narrowings(old: Schema, new: Schema, *, path: str, roots: tuple[Schema, Schema]) -> list[Narrowing]:
    """Return why a reader with the schema ``old`` may not understand a message written by ``new``.

    The reverse of ``request_narrowings``, except that readers ignore unknown fields.
    """
    return list(_Comparison(*reversed(roots), is_answer=True).compare(path, new, old))


class _Comparison:
    """Compares the values that ``narrow`` allows to be written with those that ``wide`` accepts."""

    def __init__(self, narrow_root: Schema, wide_root: Schema, *, is_answer: bool) -> None:
        self._narrow_root = narrow_root
        self._wide_root = wide_root
        self._is_answer = is_answer
        self._under_way: set[tuple[int, int]] = set()

    def compare(self, path: str, narrow: Any, wide: Any) -> Iterator[Narrowing]:  # noqa: ANN401 - a schema may be a bool
        """Yield where ``wide`` rejects a value that ``narrow`` accepts."""
        narrow, wide = _schema(narrow), _schema(wide)
        ours = list(_alternatives(narrow, self._narrow_root))
        theirs = list(_alternatives(wide, self._wide_root))
        for one in ours:
            yield from self._fit(path, one, theirs)

    def _fit(self, path: str, narrow: Schema, alternatives: list[Schema]) -> Iterator[Narrowing]:
        """Yield why no alternative accepts ``narrow``; in detail if one has the same type."""
        reasons = [list(self._compare_one(path, narrow, wide)) for wide in alternatives]
        if not all(reasons):
            return
        alike = [found for found, wide in zip(reasons, alternatives, strict=True) if _kind(narrow) == _kind(wide)]
        if alike or len(alternatives) == 1:
            yield from min(alike or reasons, key=len)
        elif self._is_answer:
            yield Narrowing(path, f"may now be {_kind(narrow)}")
        else:
            yield Narrowing(path, f"{_kind(narrow)} is no longer accepted")

    def _compare_one(self, path: str, narrow: Schema, wide: Schema) -> Iterator[Narrowing]:
        if (allowed := _values(wide)) is not None:
            yield from self._compare_values(path, narrow, allowed)
            return
        if not _has_type(narrow, wide.get("type")):
            yield self._changed(path, "type", _kind(narrow), _kind(wide))
            return
        for keyword in wide.keys() - _ANNOTATIONS - _HANDLED:
            if not _is_within(keyword, narrow.get(keyword), wide[keyword]):
                yield self._changed(path, keyword, narrow.get(keyword), wide[keyword])
        pair = _identity(narrow), _identity(wide)
        if pair not in self._under_way:  # a recursive model
            self._under_way.add(pair)
            yield from self._compare_parts(path, narrow, wide)
            self._under_way.discard(pair)

    def _compare_parts(self, path: str, narrow: Schema, wide: Schema) -> Iterator[Narrowing]:
        if "items" in wide and _may_be(narrow, "array"):
            yield from self.compare(f"{path}[]", narrow.get("items", True), wide["items"])
        if wide.keys() & {"properties", "required", "additionalProperties"} and _may_be(narrow, "object"):
            yield from self._compare_fields(path, narrow, wide)

    def _compare_values(self, path: str, narrow: Schema, allowed: list[Any]) -> Iterator[Narrowing]:
        given = _values(narrow)
        if given is None:
            yield self._changed(path, "values", "any", allowed)
        elif others := [value for value in given if value not in allowed]:
            text = "values may now be {}" if self._is_answer else "values no longer accepted: {}"
            yield Narrowing(path, text.format(", ".join(map(json.dumps, others))))

    def _compare_fields(self, path: str, narrow: Schema, wide: Schema) -> Iterator[Narrowing]:
        ours, theirs = narrow.get("properties", {}), wide.get("properties", {})
        must, other = narrow.get("required", []), wide.get("additionalProperties", True)
        if not self._is_answer:
            yield from self._compare_aliases(path, ours, theirs)
            ours, must = _renamed(ours, must, theirs)
        for name in wide.get("required", []):
            if name not in must:
                yield Narrowing(f"{path}.{name}", self._absent(is_known=name in ours))
        for name in ours.keys() & theirs.keys():
            yield from self.compare(f"{path}.{name}", ours[name], theirs[name])
            if name not in must and name not in wide.get("required", []):
                yield from self._compare_defaults(f"{path}.{name}", ours[name], theirs[name])
        for name in ours.keys() - theirs.keys():
            yield from self._compare_unknown(f"{path}.{name}", ours[name], other)
        if self._is_answer:
            for name in theirs.keys() - ours.keys() - set(wide.get("required", [])):
                yield Narrowing(f"{path}.{name}", "field removed")
        yield from self._compare_rest(path, narrow.get("additionalProperties", True), other)

    def _compare_rest(self, path: str, rest: Any, other: Any) -> Iterator[Narrowing]:  # noqa: ANN401 - as in compare
        """Compare the rules for unnamed fields."""
        if other is False and rest is not False:
            yield Narrowing(path, "may now have other fields" if self._is_answer else "other fields are now refused")
        elif isinstance(other, dict) and rest is not False:
            yield from self.compare(f"{path}.*", rest, other)

    def _compare_aliases(self, path: str, ours: Schema, theirs: Schema) -> Iterator[Narrowing]:
        """Yield names that no longer mean the same field."""
        meant = fields_by_name(theirs)
        for alias, name in fields_by_name(ours).items():
            if alias != name and name in meant and meant.get(alias) != meant[name]:
                yield Narrowing(f"{path}.{alias}", f"no longer read as {name}")

    def _absent(self, *, is_known: bool) -> str:
        if self._is_answer:
            return "may now be missing" if is_known else "field removed"
        return "is now required" if is_known else "new required field"

    def _compare_unknown(self, path: str, field: Any, other: Any) -> Iterator[Narrowing]:  # noqa: ANN401 - as in compare
        """Compare a field that ``wide`` does not name."""
        if isinstance(other, dict):
            yield from self.compare(path, field, other)
        elif not self._is_answer:
            yield Narrowing(path, "field removed")
        elif other is False:
            yield Narrowing(path, "new field, which readers refuse")

    def _compare_defaults(self, path: str, narrow: Any, wide: Any) -> Iterator[Narrowing]:  # noqa: ANN401 - as in compare
        """Yield changed defaults: a job queued without the field would change its meaning and not match its receipt."""
        before, now = (_schema(found).get("default", _MISSING) for found in (narrow, wide))
        if not self._is_answer and before != now:
            texts = ("none" if found is _MISSING else json.dumps(found) for found in (before, now))
            yield Narrowing(path, "default was {}, is now {}".format(*texts))

    def _changed(self, path: str, keyword: str, narrow: object, wide: object) -> Narrowing:
        before, now = (wide, narrow) if self._is_answer else (narrow, wide)
        texts = ["none" if value is None else value if isinstance(value, str) else json.dumps(value)
                 for value in (before, now)]  # fmt: skip
        return Narrowing(path, f"{keyword} was {texts[0]}, is now {texts[1]}")


def _schema(schema: Any) -> Schema:  # noqa: ANN401 - a schema may be a bool
    if isinstance(schema, dict):
        return schema
    return {} if schema else {"enum": []}


def _renamed(ours: Schema, must: list[str], theirs: Schema) -> tuple[Schema, list[str]]:
    """Rename fields of ``ours`` to the fields of ``theirs`` that accept them; two that would become one keep theirs."""
    meant = fields_by_name(theirs)
    called = {name: meant.get(name, name) for name in ours}
    called = {name: name if list(called.values()).count(new) > 1 else new for name, new in called.items()}
    return {called[name]: field for name, field in ours.items()}, [called.get(name, name) for name in must]


def _identity(schema: Schema) -> int:
    """Return an identity that is equal for every ``$ref`` to this schema."""
    parts = (schema.get(name) for name in ("properties", "items", "additionalProperties"))
    return next((id(part) for part in parts if isinstance(part, dict)), id(schema))


def _alternatives(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the schema's alternatives, one type each, combined with the keywords that apply to all."""
    schema = _resolved(schema, root)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            rest = {name: value for name, value in schema.items() if name != keyword}
            for one in schema[keyword]:
                yield from _alternatives(rest | _resolved(_schema(one), root), root)
            return
    if isinstance(schema.get("type"), list):
        yield from (schema | {"type": one} for one in schema["type"])
    else:
        yield schema


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Resolve ``$ref``; keywords beside it apply as well."""
    while "$ref" in schema:
        found: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found | {name: value for name, value in schema.items() if name != "$ref"}
    return schema


def _values(schema: Schema) -> list[Any] | None:
    """Return the values that the schema enumerates; ``None`` if it does not."""
    if "const" in schema:
        return [schema["const"]]
    values: list[Any] | None = schema.get("enum")
    return values


_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null", list: "array",
               dict: "object"}  # fmt: skip


def _types(schema: Schema) -> set[str]:
    """Return the allowed types; empty if all are allowed."""
    values = _values(schema)
    if values is not None:
        return {_JSON_TYPES[type(value)] for value in values}
    return {schema["type"]} if "type" in schema else set()


def _has_type(narrow: Schema, type_: str | None) -> bool:
    types = _types(narrow)
    return type_ is None or types == {type_} or bool(types and types <= {"integer", type_} and type_ == "number")


def _may_be(schema: Schema, type_: str) -> bool:
    return not (types := _types(schema)) or type_ in types


def _kind(schema: Schema) -> str:
    """Return a readable name of the type."""
    if (values := _values(schema)) is not None:
        return "one of " + ", ".join(map(json.dumps, values))
    return str(schema.get("type", "any"))


def _is_within(keyword: str, narrow: Any, wide: Any) -> bool:  # noqa: ANN401 - values of a keyword
    """Return whether the limit ``wide`` allows all that ``narrow`` allows."""
    if narrow == wide or (keyword in _SIZES and wide == 0):
        return True
    if narrow is None:
        return keyword == "uniqueItems" and wide is False
    if keyword in _CEILINGS:
        return bool(narrow <= wide)
    if keyword in _FLOORS:
        return bool(narrow >= wide)
    if keyword == "multipleOf":
        return bool(narrow % wide == 0)
    return keyword == "uniqueItems" and bool(narrow)
