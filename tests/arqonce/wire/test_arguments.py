"""Making payloads of arguments. No server is needed."""

from math import inf
from typing import Any, ClassVar

import pytest

from arqonce import Payload, Result
from arqonce.failures import InvalidPayloadError
from arqonce.wire.arguments import read_payload
from jobs.payloads import CreateUser


def test_positional_arguments_are_the_first_fields() -> None:
    """Plain arq producers may call ``enqueue_job("create_user", "Jane", "jane@example.org")``."""
    payload = read_payload(CreateUser, ["Jane"], {"email": "JANE@example.org"})

    assert payload == CreateUser(name="Jane", email="jane@example.org")


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ([], {}, "create_user: name: Field required. Its fields are: name, email"),
        (["a", None, 3], {}, "create_user takes at most 2 arguments (name, email), not 3"),
        (["a"], {"name": "b"}, "create_user was given name both by position and by name"),
        ([], {"name": "a", "ctx": 1}, "create_user: ctx: Extra inputs are not permitted. Its fields are: name, email"),
        ([], {"name": "1 to " * 99}, "create_user: name: must have 1 to 200 characters. Its fields are: name, email"),
        ([], {"name": 5}, "create_user: name: Input should be a valid string. Its fields are: name, email"),
        (
            [],
            {"name": "a", "email": "secret"},
            "create_user: email: is not an e-mail address such as jane@example.org. Its fields are: name, email",
        ),
    ],
)
def test_wrong_arguments_name_field_and_cure(args: list[object], kwargs: dict[str, object], text: str) -> None:
    """One line that a producer in any language can act on, without the value."""
    with pytest.raises(InvalidPayloadError) as caught:
        read_payload(CreateUser, args, kwargs)

    assert caught.value.message == text


class _Numbers(Payload[Result]):
    job_name: ClassVar[str] = "numbers"
    rate: float = 0
    rates: Any = None


@pytest.mark.parametrize(("args", "kwargs"), [([inf], {}), ([], {"rates": [{"a": -inf}]})])
def test_a_number_that_json_only_has_as_1e400_is_refused(args: list[object], kwargs: dict[str, object]) -> None:
    """Python's clients refuse it, too. A text may say so."""
    with pytest.raises(InvalidPayloadError, match=r"numbers: rates? is infinite or NaN"):
        read_payload(_Numbers, args, kwargs)

    assert read_payload(_Numbers, [], {"rates": "Infinity"}).rates == "Infinity"
