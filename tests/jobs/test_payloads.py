"""The contract of the jobs. No server is needed."""

import re
import unicodedata
from typing import ClassVar, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from arqonce.payloads import Payload, Result
from db import tables
from jobs import fields, payloads
from jobs.fields import EmailAddress, UserName
from jobs.payloads import CreateUser, CreateUsers, FindUser, FoundUsers, GetOrCreateUser, NewUser, UserView


@pytest.mark.parametrize(
    ("given_name", "stored"),
    [
        ("  Jane\u3000", "Jane"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("李小龍", "李小龍"),
        ("ปิยะ", "ปิยะ"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_name_is_trimmed_and_composed(given_name: str, stored: str) -> None:
    """The same name typed on any keyboard is the same name."""
    assert CreateUser(name=given_name).name == stored


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 201, "a\x00b", "a\nb", "\x1b[31m", "\ud800", "\ufeff", "\u200b \u200b"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    """Empty, too long, control characters, broken Unicode."""
    with pytest.raises(ValidationError):
        CreateUser(name=name)


@pytest.mark.parametrize(
    ("given_email", "stored"),
    [
        (" Jane.Doe+x@Example.ORG ", "jane.doe+x@example.org"),
        ("KÄTHE@BÜCHER.example", "käthe@bücher.example"),
        ("a@b.c", "a@b.c"),
    ],
)
def test_an_email_is_normalised(given_email: str, stored: str) -> None:
    """Case and outer white space do not make another person."""
    assert CreateUser(name="x", email=given_email).email == stored


@pytest.mark.parametrize(
    "email",
    [
        *("", "jane", "@b.c", "jane@", "jane@host", "a b@c.d", "a@b@c.d", "a@b..c", "a@.b", "a@b.", "a,b@c.d"),
        *("x" * 65 + "@b.c", "a@" + "b" * 300 + ".c", "a\x00@b.c", "a@b.c\x07"),
    ],
)
def test_what_is_no_email_is_refused(email: str) -> None:
    """One @, a local part and a domain with a dot, within the limits."""
    with pytest.raises(ValidationError):
        CreateUser(name="x", email=email)


@given(st.text(max_size=300))
def test_an_accepted_name_fits_the_column(text: str) -> None:
    """Whatever passes the payload passes the database's checks."""
    try:
        name: str = TypeAdapter(UserName).validate_python(text)
    except ValidationError:
        return

    assert 1 <= len(name) <= tables.NAME_LENGTH
    assert name == name.strip(" ")
    assert "\x00" not in name
    assert len(text) > fields.NAME_LENGTH or re.search(_pattern("name"), text)
    assert unicodedata.is_normalized("NFC", name)


@given(st.from_regex(r"[^@]{1,70}@[^@]{1,50}\.[^@]{1,20}", fullmatch=True) | st.emails())
def test_an_accepted_email_fits_the_column_and_stays(text: str) -> None:
    """Normalising twice changes nothing, and the result passes the database's checks."""
    adapter: TypeAdapter[str] = TypeAdapter(EmailAddress)
    try:
        email = adapter.validate_python(text)
    except ValidationError:
        return

    assert 3 <= len(email) <= tables.EMAIL_LENGTH
    assert email == email.lower().strip()
    assert email.index("@") > 0
    assert adapter.validate_python(email) == email
    assert len(text) > fields.EMAIL_LENGTH or re.search(_pattern("email"), text)


@pytest.mark.parametrize(
    ("email", "is_good"),
    [
        ("jané@exämple.org", True),
        (" a..b@-x.org\u3000", True),
        ("李@例子.中国", True),
        ("a b@example.org", False),
        ("jane@example", False),
        ("jane@example..org", False),
        ("a\x00b@example.org", False),
    ],
)
def test_the_schema_says_of_an_email_what_the_worker_says(email: str, is_good: bool) -> None:  # noqa: FBT001 - a table
    """Who validates by the contract refuses nobody whom the worker would store."""
    try:
        CreateUser(name="x", email=email)
    except ValidationError:
        accepted = False
    else:
        accepted = True

    assert (accepted, bool(re.search(_pattern("email"), email))) == (is_good, is_good)


def _pattern(field: str) -> str:
    schema = TypeAdapter(NewUser).json_schema()["properties"][field]
    (pattern,) = [one["pattern"] for one in [schema, *schema.get("anyOf", [])] if "pattern" in one]
    return str(pattern)


def test_payloads_and_tables_agree_on_lengths() -> None:
    """The limits stand twice, because producers must not load SQLAlchemy."""
    assert (fields.NAME_LENGTH, fields.EMAIL_LENGTH) == (tables.NAME_LENGTH, tables.EMAIL_LENGTH)


@pytest.mark.parametrize("given_fields", [{}, {"id": 1, "name": "x"}, {"id": 0}, {"id": 2**63}, {"nme": "x"}])
def test_a_look_up_takes_exactly_one_key(given_fields: dict[str, object]) -> None:
    """Neither none nor two, nor an id that no row can have."""
    with pytest.raises(ValidationError):
        FindUser.model_validate(given_fields)


def test_a_set_has_at_least_one_and_at_most_a_thousand_users() -> None:
    """The bounds keep a message small and a transaction short."""
    many = [NewUser(name="x")] * (payloads.MAX_USERS + 1)

    for users in ([], many):
        with pytest.raises(ValidationError):
            CreateUsers(users=users)


def test_validation_errors_do_not_repeat_values() -> None:
    """What was given is people's data."""
    with pytest.raises(ValidationError) as caught:
        GetOrCreateUser(name="Jane Secret\x00", email="secret-address")

    assert "ecret" not in str(caught.value)


def test_each_payload_knows_its_result() -> None:
    """The type parameter is there at run time as well, also for subclasses."""

    class Child(CreateUser):
        pass

    assert [payload.result_type() for payload in (CreateUser, FindUser, Child)] == [UserView, FoundUsers, UserView]


_Item = TypeVar("_Item")
_Of = TypeVar("_Of", bound=BaseModel)


class _Page(Result, Generic[_Item]):
    """One page of them."""

    items: list[_Item]


class _Listing(Payload[_Page[_Item]], Generic[_Of, _Item]):
    """A project's own base class: its first parameter is that of a field."""

    by: _Of


class _Plain(Payload[_Of], Generic[_Of]):
    """The same parameter as the payload's."""


def test_the_result_is_that_of_payload_whatever_stands_in_between() -> None:
    """It was the first parameter of the nearest generic class: a handler's true result was refused."""

    class Listing(_Listing[FindUser, int]):
        job_name: ClassVar[str] = "listing"

    class Plain(_Plain[UserView]):
        job_name: ClassVar[str] = "plain"

    kinds = (Listing, Plain, _Plain[UserView], _Listing[UserView, UserView])
    assert [kind.result_type() for kind in kinds] == [_Page[int], UserView, UserView, _Page[UserView]]


def test_a_payload_without_result_says_what_is_missing() -> None:
    """The error names the cure."""

    class Bare(Payload):  # type: ignore[type-arg] # the mistake under test
        pass

    with pytest.raises(TypeError, match="must inherit from Payload"):
        Bare.result_type()


def test_a_newer_result_is_readable_by_an_older_producer() -> None:
    """Workers are deployed before producers."""
    found = FoundUsers.model_validate({"users": [], "total": 0})

    assert found.first is None
    assert isinstance(found, BaseModel)
