"""What breaks queued jobs, older producers and readers of results is found; what does not is left alone."""

import copy
from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import AliasChoices, BaseModel, Field, create_model

from arqonce.contract.compatibility import ContractError, Side, find_breaks
from arqonce.payloads import Result
from tests.arqonce.contract.conftest import Contract, Fields

REQUIRED = (int, ...)


class Node(BaseModel):
    """A model that holds itself."""

    name: str
    inner: "Node | None" = None


class ShortNode(BaseModel):
    """The same, narrower inside."""

    name: Annotated[str, Field(max_length=5)]
    inner: "ShortNode | None" = None


def _limited(type_: Any, **limits: Any) -> Any:  # noqa: ANN401 - a type
    return (Annotated[type_, Field(**limits)], ...)


def _read_as(*names: str, default: Any = ...) -> Any:  # noqa: ANN401 - any default
    return (int, Field(default, validation_alias=AliasChoices(*names)))


def _item(**fields: Any) -> Any:  # noqa: ANN401 - a field
    return (list[create_model("Item", **fields)], ...)  # type: ignore[misc] # made here


BREAK_REQUESTS: dict[str, tuple[Fields, Fields, list[str]]] = {
    "removed field": ({"a": REQUIRED, "b": (int, 0)}, {"a": REQUIRED}, [".k.b: field removed"]),
    "renamed field": (
        {"a": REQUIRED}, {"b": REQUIRED}, [".k.a: field removed", ".k.b: new required field"],
    ),
    "old name refused": ({"b": _read_as("b", "a")}, {"b": REQUIRED}, [".k.a: no longer read as b"]),
    "old name of another field": (
        {"b": _read_as("b", "a")}, {"b": REQUIRED, "a": (int, 0)}, [".k.a: no longer read as b"],
    ),
    "two fields that became one": (
        {"a": (int, 0), "b": (int, 0)}, {"b": _read_as("b", "a", default=0)},
        [".k.a: field removed", ".k: fields have another order: arq's producers may pass them by position"],
    ),
    "renamed field with a lower limit": (
        {"a": _limited(int, le=9)}, {"b": (int, Field(le=8, validation_alias=AliasChoices("b", "a")))},
        [".k.b: maximum was 9, is now 8"],
    ),
    "renamed field in another place": (
        {"a": REQUIRED, "c": REQUIRED}, {"c": REQUIRED, "b": _read_as("b", "a")},
        [".k: fields have another order: arq's producers may pass them by position"],
    ),
    "new required field": ({}, {"a": REQUIRED}, [".k.a: new required field"]),
    "field that became required": ({"a": (int, 0)}, {"a": REQUIRED}, [".k.a: is now required"]),
    "narrower type": ({"a": (float, ...)}, {"a": REQUIRED}, [".k.a: type was number, is now integer"]),
    "other type": ({"a": (str, ...)}, {"a": REQUIRED}, [".k.a: type was string, is now integer"]),
    "null refused": ({"a": (int | None, ...)}, {"a": REQUIRED}, [".k.a: type was null, is now integer"]),
    "one of three types refused": (
        {"a": (int | str | None, ...)}, {"a": (int | None, ...)}, [".k.a: string is no longer accepted"],
    ),
    "shorter text": (
        {"a": _limited(str, max_length=9)}, {"a": _limited(str, max_length=8)}, [".k.a: maxLength was 9, is now 8"],
    ),
    "new limit": ({"a": (str, ...)}, {"a": _limited(str, max_length=8)}, [".k.a: maxLength was none, is now 8"]),
    "higher minimum": (
        {"a": _limited(int, ge=1)}, {"a": _limited(int, ge=2)}, [".k.a: minimum was 1, is now 2"],
    ),
    "limit in an optional field": (
        {"a": (Annotated[str, Field(max_length=9)] | None, None)},
        {"a": (Annotated[str, Field(max_length=8)] | None, None)},
        [".k.a: maxLength was 9, is now 8"],
    ),
    "fewer items": (
        {"a": _limited(list[int], max_length=9)}, {"a": _limited(list[int], max_length=8)},
        [".k.a: maxItems was 9, is now 8"],
    ),
    "other pattern": (
        {"a": _limited(str, pattern="^a")}, {"a": _limited(str, pattern="^b")}, [".k.a: pattern was ^a, is now ^b"],
    ),
    "new format": ({"a": (str, ...)}, {"a": (datetime, ...)}, [".k.a: format was none, is now date-time"]),
    "coarser step": (
        {"a": _limited(int, multiple_of=2)}, {"a": _limited(int, multiple_of=4)}, [".k.a: multipleOf was 2, is now 4"],
    ),
    "removed value": (
        {"a": (Literal["x", "y"], ...)}, {"a": (Literal["x"], ...)}, ['.k.a: values no longer accepted: "y"'],
    ),
    "text that became a choice": (
        {"a": (str, ...)}, {"a": (Literal["x", "y"], ...)}, ['.k.a: values was any, is now ["x", "y"]'],
    ),
    "other default": ({"a": (int, 1)}, {"a": (int, 2)}, [".k.a: default was 1, is now 2"]),
    "other order": (
        {"a": REQUIRED, "b": REQUIRED}, {"b": REQUIRED, "a": REQUIRED},
        [".k: fields have another order: arq's producers may pass them by position"],
    ),
    "field of an item": (
        {"a": _item(x=REQUIRED)}, {"a": _item(x=REQUIRED, y=REQUIRED)}, [".k.a[].y: new required field"],
    ),
    "value of a mapping": (
        {"a": (dict[str, int | None], ...)}, {"a": (dict[str, int], ...)}, [".k.a.*: type was null, is now integer"],
    ),
    "inside a model that holds itself": (
        {"a": (Node, ...)}, {"a": (ShortNode, ...)}, [".k.a.name: maxLength was none, is now 5"],
    ),
}  # fmt: skip

BREAK_READERS: dict[str, tuple[Fields, Fields, list[str]]] = {
    "removed field": ({"a": REQUIRED, "b": (int, 0)}, {"a": REQUIRED}, [".r.b: field removed"]),
    "renamed field": ({"a": REQUIRED}, {"b": REQUIRED}, [".r.a: field removed"]),
    "other type": ({"a": REQUIRED}, {"a": (str, ...)}, [".r.a: type was integer, is now string"]),
    "wider type": ({"a": REQUIRED}, {"a": (float, ...)}, [".r.a: type was integer, is now number"]),
    "null": ({"a": REQUIRED}, {"a": (int | None, ...)}, [".r.a: type was integer, is now null"]),
    "another of three types": (
        {"a": (int | None, ...)}, {"a": (int | str | None, ...)}, [".r.a: may now be string"],
    ),
    "longer text": (
        {"a": _limited(str, max_length=8)}, {"a": _limited(str, max_length=9)}, [".r.a: maxLength was 8, is now 9"],
    ),
    "lost format": ({"a": (datetime, ...)}, {"a": (str, ...)}, [".r.a: format was date-time, is now none"]),
    "new value": (
        {"a": (Literal["x"], ...)}, {"a": (Literal["x", "y"], ...)}, ['.r.a: values may now be "y"'],
    ),
    "field of an item": ({"a": _item(x=REQUIRED)}, {"a": _item(y=REQUIRED)}, [".r.a[].x: field removed"]),
}  # fmt: skip

HARMLESS_REQUESTS: dict[str, tuple[Fields, Fields]] = {
    "renamed field": ({"a": REQUIRED, "c": (int, 0)}, {"b": _read_as("b", "a"), "c": (int, 0)}),
    "renamed optional field": ({"a": (int, 1)}, {"b": _read_as("b", "a", default=1)}),
    "field renamed again": ({"b": _read_as("b", "a")}, {"c": _read_as("c", "b", "a")}),
    "renamed field of an item": ({"a": _item(x=REQUIRED)}, {"a": _item(y=_read_as("y", "x"))}),
    "new optional field": ({"a": REQUIRED}, {"a": REQUIRED, "b": (int | None, None)}),
    "field that became optional": ({"a": REQUIRED}, {"a": (int, 0)}),
    "wider type": ({"a": REQUIRED}, {"a": (float, ...)}),
    "null accepted": ({"a": REQUIRED}, {"a": (int | None, ...)}),
    "longer text": ({"a": _limited(str, max_length=8)}, {"a": _limited(str, max_length=9)}),
    "lower minimum": ({"a": _limited(int, ge=2)}, {"a": _limited(int, ge=1)}),
    "finer step": ({"a": _limited(int, multiple_of=4)}, {"a": _limited(int, multiple_of=2)}),
    "limit removed": ({"a": _limited(str, pattern="^a", max_length=8)}, {"a": (str, ...)}),
    "minimum of nothing": ({"a": (str, ...)}, {"a": _limited(str, min_length=0)}),
    "new value": ({"a": (Literal["x"], ...)}, {"a": (Literal["x", "y"], ...)}),
    "choice that became text": ({"a": (Literal["x", "y"], ...)}, {"a": (str, ...)}),
    "anything accepted": ({"a": (dict[str, int], ...)}, {"a": (Any, ...)}),
    "optional field of an item": ({"a": _item(x=REQUIRED)}, {"a": _item(x=REQUIRED, y=(int, 0))}),
    "another title and description": ({"a": REQUIRED}, {"a": (int, Field(title="x", description="y"))}),
    "wider inside a model that holds itself": ({"a": (ShortNode, ...)}, {"a": (Node, ...)}),
}

HARMLESS_ANSWERS: dict[str, tuple[Fields, Fields]] = {
    "new field": ({"a": REQUIRED}, {"a": REQUIRED, "b": REQUIRED}),
    "narrower type": ({"a": (float, ...)}, {"a": REQUIRED}),
    "never null any more": ({"a": (int | None, ...)}, {"a": REQUIRED}),
    "shorter text": ({"a": _limited(str, max_length=9)}, {"a": _limited(str, max_length=8)}),
    "value that is no longer answered": ({"a": (Literal["x", "y"], ...)}, {"a": (Literal["x"], ...)}),
    "other default": ({"a": (int, 1)}, {"a": (int, 2)}),
}


@pytest.mark.parametrize("change", BREAK_REQUESTS)
def test_change_breaks_queued_jobs(contract: Contract, change: str) -> None:
    """What an older version has written, the new one must read."""
    before, now, expected = BREAK_REQUESTS[change]

    found = find_breaks(contract(before), contract(now))

    assert [f"{one.where}: {one.what}" for one in found] == [f"order{text}" for text in expected]
    assert {one.side for one in found} == {Side.PRODUCERS}


@pytest.mark.parametrize("change", BREAK_READERS)
def test_change_breaks_readers(contract: Contract, change: str) -> None:
    """What the new version answers, one who knows the old contract must understand."""
    before, now, expected = BREAK_READERS[change]

    found = find_breaks(contract({}, before), contract({}, now))

    assert [f"{one.where}: {one.what}" for one in found] == [f"order.result{text}" for text in expected]
    assert {one.side for one in found} == {Side.READERS}


@pytest.mark.parametrize("change", HARMLESS_REQUESTS)
def test_change_of_a_payload_breaks_nobody(contract: Contract, change: str) -> None:
    """Whoever may send more than before is not disturbed."""
    before, now = HARMLESS_REQUESTS[change]

    assert find_breaks(contract(before), contract(now)) == []


@pytest.mark.parametrize("change", HARMLESS_ANSWERS)
def test_change_of_a_result_breaks_nobody(contract: Contract, change: str) -> None:
    """Readers ignore fields that they do not know."""
    before, now = HARMLESS_ANSWERS[change]

    assert find_breaks(contract({}, before), contract({}, now)) == []


def test_a_removed_or_renamed_job_breaks_queued_jobs(contract: Contract) -> None:
    """Nobody would run what is queued under the old name."""
    found = find_breaks(contract({}), contract({}, name="buy"))

    assert list(map(str, found)) == [
        "order: job removed or renamed: keep the old name in its former_names (breaks queued jobs and older producers)"
    ]


def test_a_job_that_still_answers_to_its_old_name_breaks_nobody(contract: Contract) -> None:
    """The old name is in the contract as before, with the same rules."""
    now = contract({}, name="buy", former_names=("order",))

    assert find_breaks(contract({}), now) == []
    assert set(now["channels"]["queue"]["messages"]) <= set(now["components"]["messages"])
    narrower = contract({"a": REQUIRED}, name="buy", former_names=("order",))
    assert [one.where for one in find_breaks(contract({}), narrower)] == ["order.k.a"]


def test_a_new_job_breaks_nobody(contract: Contract) -> None:
    """Nobody has sent one."""
    before, now = contract({}), contract({}, name="buy")
    for part in ("operations",):
        now[part] = before[part] | now[part]
    for part in ("messages", "schemas"):
        now["components"][part] = before["components"][part] | now["components"][part]

    assert find_breaks(before, now) == []


def test_fields_that_were_ignored_and_are_now_refused_break_producers(contract: Contract) -> None:
    """``extra="forbid"`` refuses what ``"ignore"`` let through."""
    found = find_breaks(contract({}, extra="ignore"), contract({}))

    assert [f"{one.where}: {one.what}" for one in found] == ["order.k: other fields are now refused"]
    assert find_breaks(contract({}), contract({}, extra="ignore")) == []


def test_a_removed_field_breaks_producers_also_where_it_would_be_ignored(contract: Contract) -> None:
    """Its value would be lost without a word."""
    found = find_breaks(contract({"a": (int, 0)}, extra="ignore"), contract({}, extra="ignore"))

    assert [f"{one.where}: {one.what}" for one in found] == ["order.k.a: field removed"]


def test_a_renamed_class_breaks_nobody(contract: Contract) -> None:
    """Names of classes are not on the wire."""
    before, now = contract({"a": _item(x=REQUIRED)}), contract({"a": _item(x=REQUIRED)})
    schemas = now["components"]["schemas"]
    schemas["Renamed"] = schemas.pop("Item")
    schemas["Order"]["properties"]["a"]["items"]["$ref"] = "#/components/schemas/Renamed"

    assert find_breaks(before, now) == []


def test_a_removed_kind_of_failure_breaks_readers(contract: Contract) -> None:
    """Producers tell failures apart by it."""
    before, now = contract({}), contract({})
    kinds = now["components"]["schemas"]["JobFailure"]["properties"]["type"]["anyOf"]
    kinds[:] = [kind for kind in kinds if kind.get("const") != "unknown_job"]

    found = find_breaks(before, now)

    assert list(map(str, found)) == [
        "failure.r.type.unknown_job: kind of failure removed or renamed (breaks readers of results)"
    ]
    assert find_breaks(now, before) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("keys", "queue"), "queue", "x-redis.keys.queue: was arq:queue, is now queue"),
        (("max_bytes",), 1000, "x-redis.max_bytes: was 1048576, is now 1000"),
        (("job_id", "pattern"), "^x$", "x-redis.job_id: pattern was ^[!-~]{1,200}$, is now ^x$"),
    ],
)
def test_what_redis_holds_is_part_of_the_contract(
    contract: Contract, path: tuple[str, ...], value: object, expected: str
) -> None:
    """A key that moves, or a lower limit, breaks whoever writes it."""
    before = contract({})
    now = copy.deepcopy(before)
    part = now["x-redis"]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value

    assert [f"{one.where}: {one.what}" for one in find_breaks(before, now)] == [expected]


@pytest.mark.parametrize("document", [{}, {"openapi": "3.1.0"}, {"x-redis": []}])
def test_another_document_is_refused(contract: Contract, document: dict[str, Any]) -> None:
    """It says what to give instead."""
    with pytest.raises(ContractError, match="give one that an older version wrote"):
        find_breaks(document, contract({}))


def test_another_version_of_asyncapi_is_refused(contract: Contract) -> None:
    """Its schemas may mean something else."""
    with pytest.raises(ContractError, match=r"AsyncAPI 2\.6\.0, not 3\.0\.0"):
        find_breaks(contract({}) | {"asyncapi": "2.6.0"}, contract({}))


def test_a_contract_keeps_itself(contract: Contract) -> None:
    """Whatever is in it."""
    takes = {name: before["a"] for name, (before, _, _) in BREAK_REQUESTS.items() if "a" in before}
    fields = {f"f{number}": field for number, field in enumerate(takes.values())}

    assert find_breaks(contract(fields, fields), contract(fields, fields)) == []
    assert issubclass(Result, BaseModel)
