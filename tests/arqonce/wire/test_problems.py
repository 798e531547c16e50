"""What is said of an invalid payload: enough to mend it, and no value."""

import time
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, model_validator

from arqonce import InvalidPayloadError, Payload
from arqonce.wire.arguments import read_payload

_MOST = 9


def _short(value: str) -> str:
    if len(value) > _MOST:
        raise ValueError(f"must have at most {_MOST} characters")
    return value


def _such_as(value: str) -> str:
    if value:
        raise ValueError("is no code such as jane-1")
    return value


_RULE = f"must have at most {_MOST} characters"


def _sized(value: str) -> str:
    if value:
        raise ValueError(_RULE)
    return value


def _told(value: str) -> str:
    if value:
        raise ValueError(f"{value.upper()!r} is no name")
    return value


def _asserted(value: int) -> int:
    assert value > 20, f"{value} is too young"
    return value


def _beside(value: str, info: ValidationInfo) -> str:
    if value:
        raise ValueError(f"does not belong to {info.data['short']}")
    return value


class _Cat(BaseModel):
    kind: Literal["cat"]


class _Dog(BaseModel):
    kind: Literal["dog"]


class _Register(Payload[_Cat]):
    job_name: ClassVar[str] = "register"

    short: Annotated[str, AfterValidator(_short)] = ""
    such_as: Annotated[str, AfterValidator(_such_as)] = ""
    sized: Annotated[str, AfterValidator(_sized)] = ""
    told: Annotated[str, AfterValidator(_told)] = ""
    asserted: Annotated[int, AfterValidator(_asserted)] = 30
    beside: Annotated[str, AfterValidator(_beside)] = ""
    pet: Annotated[_Cat | _Dog, Field(discriminator="kind")] | None = None
    ages: dict[str, int] = Field(default_factory=dict)
    pets: list[_Cat] = Field(default_factory=list)

    @model_validator(mode="after")
    def _all(self) -> "_Register":
        if self.ages.get("all"):
            raise ValueError(f"{self.short} has {self.ages}")
        return self


_LEFT_OUT = "; the reason is left out, because it repeats a value"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"short": "Secretly Jane"}, "short: must have at most 9 characters"),
        ({"such_as": "jane-2"}, "such_as: is no code such as jane-1"),  # a constant
        ({"sized": "at most 9"}, "sized: must have at most 9"),  # one of the module
        ({"told": "jane"}, f"told: is refused (value_error){_LEFT_OUT}"),
        ({"told": "Łucja\nö"}, f"told: is refused (value_error){_LEFT_OUT}"),
        ({"asserted": 17}, f"asserted: is refused (assertion_error){_LEFT_OUT}"),
        ({"short": "jane", "beside": "x"}, f"beside: is refused (value_error){_LEFT_OUT}"),
        ({"pet": {"kind": "Secretly Jane"}}, f"pet: is refused (union_tag_invalid){_LEFT_OUT}"),
        ({"pet": {"kind": "dog", "jane": 1}}, None),
        ({"ages": {"jane@example.org": "x"}}, "ages.…: Input should be a valid integer, unable to parse string as an"),
        ({"pets": [{"kind": "jane"}]}, "pets.0.kind: Input should be 'cat'"),
        ({"short": "jane", "ages": {"all": 1}}, f"is refused (value_error){_LEFT_OUT}"),
        ({"shrt": 1}, "shrt: Extra inputs are not permitted"),
    ],
)
def test_no_value_is_repeated(given: dict[str, Any], said: str | None) -> None:
    """Texts of validators, keys of mappings and tags of unions go into no log and to no operator."""
    if said is None:
        assert read_payload(_Register, [], given)
        return
    with pytest.raises(InvalidPayloadError) as caught:
        read_payload(_Register, [], given)

    assert caught.value.message.startswith(f"register: {said}")


def test_many_problems_are_told_in_short_and_soon() -> None:
    """Each was compared with all values: a minute for a thousand of them, in which the worker did nothing else."""
    began = time.process_time()
    with pytest.raises(InvalidPayloadError, match=r"; and 1,980 more\. Its fields") as caught:
        read_payload(_Many, [], {"all": ["too long, too long"] * 2000})

    assert (len(caught.value.message) < 2000, time.process_time() - began < 2) == (True, True)


def test_a_million_problems_are_counted() -> None:
    """One object of pydantic for each: twenty messages of 1 MB took 40 seconds and 1.3 GB."""
    with pytest.raises(InvalidPayloadError, match=r"many: 20,000 problems, too many to tell.*Its fields") as caught:
        read_payload(_Many, [], {"all": [0] * 20_000})

    assert caught.value.__context__ is None


class _Many(Payload[_Cat]):
    job_name: ClassVar[str] = "many"

    all: list[Annotated[str, AfterValidator(_short)]]
