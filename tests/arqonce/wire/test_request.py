"""What a producer sends, the worker gets, and knows again: over the types that pydantic has, in any process."""

import json
import os
import re
import subprocess
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    Strict,
    computed_field,
    create_model,
    field_serializer,
)
from pydantic_core import to_json
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import InvalidMessageError, JobClient, Payload, Result, SyncJobClient, enqueue_in
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import decode
from arqonce.wire.request import json_in_order, request_hash, write_job
from jobs import CreateUser

ROOT = Path(__file__).parents[3]
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


class Color(Enum):
    """Values of a wire of one's own."""

    RED = "red"


class Answer(Enum):
    """JSON has one null for two things."""

    NONE = None
    YES = 1


class Inner(BaseModel):
    """A model inside."""

    tags: set[str] = set()
    sizes: dict[str, float] = {}


@dataclass
class Point:
    """A dataclass inside."""

    x: int
    tags: frozenset[str] = frozenset()


@dataclass(slots=True)
class Slots:
    """One without a ``__dict__``."""

    x: int
    tags: frozenset[str] = frozenset()


class Tags(RootModel[set[str]]):
    """A model that is written as what it holds."""


class Cat(BaseModel):
    """One of a union, with a tag that nobody sets."""

    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    """The other one."""

    kind: Literal["dog"] = "dog"
    tricks: set[str] = set()


class Rewritten(BaseModel):
    """Is written with a name under which it is not read, unless told otherwise."""

    model_config = ConfigDict(serialize_by_alias=True)

    ours: str = Field("x", serialization_alias="theirs")


class Plain(BaseModel):
    """A model that a field takes."""

    name: str


class Special(Plain):
    """What a field takes as well, and would not send."""

    secret: str


class Open(BaseModel):
    """Takes whatever it gets."""

    model_config = ConfigDict(extra="allow")


class Renamed(BaseModel):
    """Is written with another name than it is read."""

    ours: str = Field(validation_alias="theirs")


class Price(Enum):
    """Decimals, which are written as texts."""

    FULL = Decimal("1.50")


class InSeconds(BaseModel):
    """Writes times as numbers, which are read as times in UTC."""

    model_config = ConfigDict(ser_json_temporal="seconds")

    at: datetime


class Counting(BaseModel):
    """Is another one each time that it is made."""

    count: int

    def model_post_init(self, _context: object) -> None:
        """Count."""
        self.count += 1


def _kind(annotation: Any) -> type[Payload[Any]]:  # noqa: ANN401 - any annotation
    """Make a payload with one field."""
    return create_model("Kind", __base__=Payload[Result], job_name=(ClassVar[str], "kind"), field=(annotation, ...))


def _of(annotation: Any, value: object) -> Payload[Any]:  # noqa: ANN401 - any annotation
    return _kind(annotation).model_validate({"field": value})


def _sent(payload: Payload[Any]) -> Payload[Any]:
    """Return what the worker gets."""
    message = decode(write_job(payload, enqueued_ms=1))
    return read_payload(type(payload), message["a"], message["k"])


ACCEPTED: dict[str, tuple[Any, Any]] = {
    "text": (str, "Jürgen \x01 \U0001f600"),
    "int": (int, 10**300),
    "float": (float, 1e22),
    "bool": (bool, True),
    "datetime": (datetime, NOON),
    "date": (date, NOON.date()),
    "time": (time, NOON.timetz()),
    "timedelta": (timedelta, timedelta(days=-1, microseconds=1)),
    "UUID": (UUID, UUID(int=5)),
    "Decimal": (Decimal, Decimal("1.10")),
    "Enum": (Color, Color.RED),
    "Literal": (Literal["a", 1], 1),
    "union": (int | str | None, "5"),
    "tuple": (tuple[int, str], (1, "a")),
    "list": (list[datetime], [NOON]),
    "set": (set[str], set("abcdef")),
    "frozenset of tuples": (frozenset[tuple[int, str]], frozenset({(2, "b"), (1, "a"), (10, "c")})),
    "dict": (dict[str, list[set[int]]], {"b": [{3, 1, 2}], "a": []}),
    "dict by number": (dict[int, str], {2: "b", 1: "a"}),
    "model": (Inner, Inner(tags=set("xyz"), sizes={"b": 1.5, "a": 2.0})),
    "dataclass": (Point, Point(1, frozenset("xyz"))),
    "any JSON": (Any, {"b": [1, None], "a": "x"}),
    "address": (IPv4Address, IPv4Address("127.0.0.1")),
    "url": (AnyUrl, AnyUrl("https://example.org/a?b=c")),
    "path": (Path, Path("a/b")),
    "bytes in base64": (Base64Bytes, b"YWJj"),
    "text bytes": (bytes, b"abc"),
    "stripped": (Annotated[str, AfterValidator(str.strip)], " a "),
    "model of a set": (list[Tags], [Tags(set("abcdef"))]),
    "model of a dict": (RootModel[dict[str, int]], {"b": 1, "a": 2}),
    "dataclass with slots": (Slots, Slots(1, frozenset("xyz"))),
    "sets in sets": (frozenset[frozenset[str]], frozenset({frozenset("abcdef"), frozenset("xyz")})),
    "sets in tuples in sets": (set[tuple[int, frozenset[str]]], {(1, frozenset("abcdef")), (2, frozenset("xyz"))}),
    "deque": (deque[set[str]], deque([set("abcdef")])),
    "more fields that are lists": (Open, Open.model_validate({"more": [{"b": 1, "a": 2}]})),
    "tagged union": (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(tricks=set("abcdef"))),
    "union of models": (list[Cat | Dog], [Dog(), Cat(lives=7)]),
}

REFUSED: dict[str, tuple[Any, Any]] = {
    "secret": (SecretStr, SecretStr("hidden-word")),
    "secrets inside": (list[SecretStr], [SecretStr("hidden-word")]),
    "NaN": (float, float("nan")),
    "infinite": (list[float], [1.0, float("-inf")]),
    "bytes": (bytes, b"\xff"),
    "tuple as any": (Any, (1, 2)),
    "set as any": (Any, {1, 2}),
    "time as any": (Any, NOON),
    "object": (Any, object()),
    "callable": (Callable[[], int], len),
    "left out": (Annotated[str, Field(exclude=True)], "hidden-word"),
    "JSON text": (Json[list[int]], "[1, 2]"),
    "iterator": (Iterable[int], [1, 2]),
    "tuple as sequence": (Sequence[int], (1, 2)),
    "of a subclass": (Plain, Special(name="Jane", secret="hidden-word")),
    "more fields": (Open, Open.model_validate({"more": NOON})),
    "read by another name": (Renamed, Renamed(theirs="hidden-word")),
    "a value of an enum that is no JSON": (Price, Price.FULL),
    "a literal that is no JSON": (Literal[b"hidden-word"], b"hidden-word"),
    "left out for its value": (Annotated[int, Field(default=7, exclude_if=lambda value: value == 0)], 0),
    "strict": (Annotated[datetime, Strict()], NOON),
    "seconds since 1970": (InSeconds, InSeconds(at=datetime(2024, 1, 1))),  # noqa: DTZ001 - naive, so it becomes aware
    "an offset with seconds": (datetime, datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    "such an offset inside": (list[datetime], [datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin"))]),
    "changed when made": (Counting, Counting(count=1)),
    "an enum's None": (Answer | None, Answer.NONE),
    "written with another name": (Rewritten, Rewritten(ours="hidden-word")),
    "numbers that look alike": (list[int | Decimal], [Decimal(5)]),
    "a path that is no text": (Path, Path("hidden-word\udcff")),
    "a number that is none": (Annotated[Decimal, Field(allow_inf_nan=True)], Decimal("sNaN")),
    "an integer that few can read": (int, 10**4300),
    "not idempotent": (Annotated[str, AfterValidator(lambda text: f"hash of {text}")], "hidden-word"),
}


BOUND = "(is infinite or NaN|is NaN|has half of a surrogate pair|has an integer of more than)"


@pytest.mark.parametrize(("annotation", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_the_worker_gets_what_was_sent(annotation: Any, value: Any) -> None:  # noqa: ANN401 - any
    """Equal, and with an equal hash."""
    payload = _of(annotation, value)

    assert _sent(payload) == payload
    assert request_hash(_sent(payload)) == request_hash(payload)


@pytest.mark.parametrize(("annotation", "value"), REFUSED.values(), ids=REFUSED)
def test_what_would_arrive_otherwise_is_refused(annotation: Any, value: Any) -> None:  # noqa: ANN401 - any
    """With the field's name and the cure, and without its value."""
    payload = _of(annotation, value)

    with pytest.raises(InvalidMessageError, match=rf"Kind\.field(: give it a type| {BOUND})") as caught:
        write_job(payload, enqueued_ms=1)

    assert "hidden-word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("hour", [datetime(2024, 10, 27, 2, 30, fold=1), datetime(2024, 3, 31, 2, 30)])  # noqa: DTZ001
def test_an_hour_that_a_zone_has_twice_or_never_is_carried(hour: datetime) -> None:
    """Python calls times in it unequal to all times of other zones; the instant is the same."""
    sent = _of(tuple[datetime, set[str]], (hour.replace(tzinfo=ZoneInfo("Europe/Berlin")), {"a"}))
    read: Any = _sent(sent)

    assert read.field[0].timestamp() == vars(sent)["field"][0].timestamp()
    assert request_hash(read) == request_hash(sent)


class WithComputed(Payload[Result]):
    """A field that no worker takes."""

    job_name: ClassVar[str] = "computed"
    name: str

    @computed_field  # type: ignore[prop-decorator] # pydantic's
    @property
    def greeting(self) -> str:
        """Greet."""
        return f"Hello {self.name}"


class WithSerializer(Payload[Result]):
    """A serializer that nothing undoes, and that fails for some."""

    job_name: ClassVar[str] = "serializer"
    name: str

    @field_serializer("name")
    def _shout(self, name: str) -> str:
        if not name:
            raise KeyError(name)
        return name.upper()


class Opened(Payload[Result]):
    """Takes whatever it gets."""

    model_config = ConfigDict(extra="allow")
    job_name: ClassVar[str] = "opened"


class Renaming(Payload[Result]):
    """Is written with a name under which it is not read."""

    model_config = ConfigDict(serialize_by_alias=True)
    job_name: ClassVar[str] = "renaming"
    ours: str = Field(serialization_alias="theirs")


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (WithComputed(name="Jane"), "WithComputed.greeting"),
        (WithSerializer(name="Jane"), "WithSerializer.name"),
        (WithSerializer(name=""), "WithSerializer.name"),
        (CreateUser.model_construct(name=""), "CreateUser.name"),
        (Opened.model_validate({"more": NOON}), "Opened.more"),
        (Renaming(ours="x"), "Renaming.theirs"),
    ],
)
def test_a_class_that_changes_what_it_sends_is_refused(payload: Payload[Any], field: str) -> None:
    """As soon as it would matter."""
    with pytest.raises(InvalidMessageError, match=field):
        write_job(payload, enqueued_ms=1)


class WithFactories(Payload[Result]):
    """Defaults that are made anew each time, and what is the producer's own."""

    job_name: ClassVar[str] = "factories"
    token: UUID = Field(default_factory=uuid4)
    tags: list[str] = Field(default_factory=list)
    plain: int = 5
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


class WithInnerFactories(Payload[Result]):
    """The same in a model inside."""

    job_name: ClassVar[str] = "inner"
    inner: WithFactories = Field(default_factory=WithFactories)


class WithTags(Payload[Result]):
    """Tags of unions, of which some are needed to read a value, and some to read the right one."""

    job_name: ClassVar[str] = "tags"
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: dict[str, Cat | Dog] = {}  # noqa: RUF012 - pydantic copies it
    others: list["WithTags"] = []  # noqa: RUF012 - as above


def test_what_cannot_be_read_hides_no_field_that_is_read_otherwise() -> None:
    """On any level."""
    inner = WithTags(pet=Dog(), pets={"a": Dog(), "b": Cat(lives=1)})
    payload = WithTags(pet=Cat(), pets={"a": Dog()}, others=[inner])

    assert _sent(payload) == payload
    assert request_hash(_sent(payload)) == request_hash(payload)


@pytest.mark.parametrize("payload", [WithFactories(), WithInnerFactories(), WithInnerFactories(inner=WithFactories())])
def test_a_default_that_is_made_is_made_once(payload: Payload[Any]) -> None:
    """By the producer: the worker's would be another. One that is not made is left to the worker."""
    message = decode(write_job(payload, enqueued_ms=1))

    assert _sent(payload) == payload
    assert request_hash(_sent(payload)) == request_hash(payload)
    assert "plain" not in message["k"]


class Simple(Payload[Result]):
    """Fields whose values all come back, if they are of their types."""

    job_name: ClassVar[str] = "simple"
    name: Annotated[str, Field(max_length=11)]
    count: int = 0
    tags: list[str] = []  # noqa: RUF012 - pydantic copies it
    inner: Inner = Inner()


def _changed(payload: Simple, change: Callable[[Simple], object]) -> Simple:
    change(payload)
    return payload


_A = Simple(name="a")


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (_A.model_copy(update={"name": 5}), "Simple.name: Input should be a valid string: make it with"),
        (_A.model_copy(update={"name": None}), "Simple.name: Input should be a valid string: make it with"),
        (_A.model_copy(update={"name": "hidden-words"}), "Simple.name: String should have at most 11"),
        (_A.model_copy(update={"count": "5"}), "Simple.count has a value of another type: make it with"),
        (_A.model_copy(update={"count": 5.0}), "Simple.count has a value of another type: make it with"),
        (_A.model_copy(update={"tags": ("a",)}), "Simple.tags has a value of another type: make it with"),
        (_A.model_copy(update={"tags": {"a"}}), "Simple.tags has a value of another type: make it with"),
        (_A.model_copy(update={"tags": ["a", object()]}), "Simple.tags.1: Input should be a valid string: make it"),
        (_A.model_copy(update={"inner": {"sizes": "hidden-word"}}), "Simple.inner.sizes: Input should be a valid dict"),
        (Simple.model_construct(count=1), "Simple.name: Field required: make it with"),  # type: ignore[call-arg] # so
    ],
)
def test_an_instance_that_nobody_validated_is_refused(payload: Simple, problem: str) -> None:
    """With the cure; pydantic's warnings, which repeat values, are not written."""
    with pytest.raises(InvalidMessageError, match=re.escape(problem)) as caught:
        write_job(payload, enqueued_ms=1)

    assert "hidden-word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "payload",
    [
        Simple(name="a").model_copy(update={"name": "b", "tags": ["c"]}),
        _changed(Simple(name="a"), lambda payload: payload.tags.append("b")),
        _changed(Simple(name="a"), lambda payload: payload.inner.tags.add("b")),
        _changed(Simple(name="a", inner=Inner()), lambda payload: payload.inner.sizes.update(b=1.0)),
    ],
)
def test_what_was_changed_in_its_place_is_sent(payload: Simple) -> None:
    """Though pydantic does not count it as set."""
    assert _sent(payload) == payload
    assert request_hash(_sent(payload)) == request_hash(payload)


_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner) | st.sets(st.text()),
    max_leaves=8,
)


@given(_values)
def test_whatever_is_sent_arrives_or_is_refused(value: object) -> None:
    """There is no third."""
    payload = _of(Any, value)
    try:
        message = write_job(payload, enqueued_ms=1)
    except InvalidMessageError:
        return
    read = read_payload(type(payload), (), decode(message)["k"])

    assert read == payload
    assert request_hash(read) == request_hash(payload)


@given(st.dictionaries(st.text(), st.frozensets(st.text())), st.randoms(use_true_random=False))
def test_order_counts_for_nothing(value: dict[str, frozenset[str]], random: Any) -> None:  # noqa: ANN401 - a Random
    """Of sets and of mappings."""
    shuffled = list(value.items())
    random.shuffle(shuffled)
    kind = dict[str, frozenset[str]]

    assert request_hash(_of(kind, dict(shuffled))) == request_hash(_of(kind, value))


@given(_values)
def test_the_hash_is_of_the_text_in_order(value: object) -> None:
    """Also where the value is JSON already, of which not each part is looked at."""
    with suppress(InvalidMessageError):
        write_job(payload := _of(Any, value), enqueued_ms=1)
        text = b"{%s:%s}" % (to_json(*type(payload).model_fields), json_in_order(value))

        assert request_hash(payload) == sha256(text).digest()


def test_no_part_of_a_large_json_value_takes_a_step_of_python() -> None:
    """A payload of 300,000 empty lists held up its producer's event loop for a second, and the worker's for half."""
    steps = Counter[str]()
    payload = _of(Any, [[], {"b": [1, {}], "a": []}] * 5000)
    sys.setprofile(lambda _frame, event, _arg: steps.update([event]))
    try:
        write_job(payload, enqueued_ms=1)
    finally:
        sys.setprofile(None)

    assert steps["call"] < 1000


_PROGRAM = """
import json
from arqonce.wire.request import request_hash
from tests.arqonce.wire.test_request import ACCEPTED, _of
print(json.dumps({name: request_hash(_of(kind, value)).hex() for name, (kind, value) in ACCEPTED.items()}))
"""


@pytest.mark.usefixtures("starts_processes")
def test_every_process_has_the_same_hashes() -> None:
    """Python puts sets into another order in each."""
    hashes = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip

    assert json.loads(hashes[0]) == json.loads(hashes[1])


async def test_every_way_in_refuses_alike(
    redis: Redis, valkey_url: str, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Both clients and the outbox; nothing is queued, and the transaction goes on."""
    payload = _of(SecretStr, "hidden-word")

    async with JobClient(valkey_url) as client:
        with pytest.raises(InvalidMessageError, match=r"Kind\.field"):
            await client.enqueue(payload)
        with pytest.raises(InvalidMessageError, match=r"Kind\.field"):
            await client.enqueue_many([CreateUser(name="Jane"), payload])
    with SyncJobClient(valkey_url) as blocking, pytest.raises(InvalidMessageError, match=r"Kind\.field"):
        blocking.enqueue(payload)
    async with sessions.begin() as session:
        with pytest.raises(InvalidMessageError, match=r"Kind\.field"):
            await enqueue_in(session, payload)
        await enqueue_in(session, CreateUser(name="Jane"))

    assert await redis.dbsize() == 0
