"""Hooks of schemathesis. Each request gets a key of its own, where it has one: a used key is refused, and rightly.

So is a key with a time for uniqueness: OpenAPI cannot say that of two headers there may be one.

And addresses are ASCII, with domains of letters and digits: which others can exist, a schema cannot say (invisible
characters, domains of nobody). Headers that the service does not know are none of its business, as HTTP has it.
"""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:  # noqa: ANN401 - theirs
    """Replace the key, unless it is wrong on purpose; then it is the only one."""
    key = (case.headers or {}).get("Idempotency-Key")
    if key is not None:
        case.headers.pop("Job-Unique-For", None)
    if isinstance(key, str) and re.fullmatch(r"[!-~]{1,200}", key):
        case.headers["Idempotency-Key"] = uuid4().hex


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:  # noqa: ANN401 - theirs
    """Leave out a case with an address that the schema cannot judge, or with a header that nobody has described."""
    if any(name.lower().startswith("x-schemathesis") for name in case.headers or ()):
        return False
    return all(map(_is_plain, _emails([case.query, case.body])))


def _is_plain(email: str) -> bool:
    domain = email.rpartition("@")[2]
    return email.isascii() and "xn--" not in email and re.search(r"[^A-Za-z0-9.-]", domain) is None


def _emails(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "email" and isinstance(part, str):
                yield part
            else:
                yield from _emails(part)
    elif isinstance(value, list):
        for part in value:
            yield from _emails(part)
