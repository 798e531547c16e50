"""Says what is wrong with a payload, without its values: the text goes into logs and to operators.

Of pydantic's own texts none has a value but those that tell a tag or another error. A text of the application's own, of
a validator, may have anything in it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from types import TracebackType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from arqonce.frames import without_frames

_NAME_LENGTH = 60
"""Most characters of a field's name in errors: a producer may have sent any name."""

_PYDANTIC_S = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}

_WORDS = re.compile(r"\w+|[^\x00-\x7f]")


_MOST_TOLD = 20
"""Problems that are told of one payload; of the others, how many there are."""

MOST_READ = 10_000
"""Of more problems none is told: pydantic makes an object of each, half a GB of a message of 1 MB."""


def problems_of(error: ValidationError, model: type[BaseModel], given: object) -> str:
    """Return which fields of the model are invalid and why, without what was ``given``. Free the error's frames."""
    problems, read_words = [], cache(lambda: _words(given))
    if (count := error.error_count()) > MOST_READ:
        error.with_traceback(None)
        return f"{count:,} problems, too many to tell: validate what is sent before it is sent"
    details = error.errors(include_url=False, include_input=False)
    for detail in details[:_MOST_TOLD]:
        where, what = ".".join(_place(detail, model)), _text(detail, read_words)
        problems.append(f"{where}: {what}" if where else what)
    more = len(details) - len(problems)
    without_frames(error, details)
    return "; ".join(problems) + (f"; and {more:,} more" if more else "")


def _place(detail: ErrorDetails, model: type[BaseModel]) -> Iterator[str]:
    """Yield the parts of the way to the value: names of fields, and what stands for a key of a mapping."""
    for depth, part in enumerate(detail["loc"]):
        is_known = depth == 0 or isinstance(part, int) or part in _names_in(model)
        yield str(part)[:_NAME_LENGTH] if is_known else "…"


@lru_cache(maxsize=200)
def _names_in(model: type[BaseModel]) -> frozenset[str]:
    """Return the texts of a model's schema, wherever they stand: names and aliases of fields, types, tags of unions."""
    return frozenset(leaf for leaf in leaves(model.__pydantic_core_schema__) if isinstance(leaf, str))


def leaves(value: object) -> Iterator[object]:
    """Yield what is in mappings, lists and models, on any level; keys, too."""
    seen, waiting = set[int](), [value]
    while waiting:
        part = waiting.pop()
        inner = vars(part) if isinstance(part, BaseModel) else part
        if isinstance(inner, Mapping):
            inner = [*inner.keys(), *inner.values()]
        if not isinstance(inner, list | tuple | set | frozenset):
            yield part
        elif id(part) not in seen:
            seen.add(id(part))
            waiting += inner


def _text(detail: ErrorDetails, read_words: Callable[[], set[str]]) -> str:
    text, context = detail["msg"].removeprefix("Value error, "), detail.get("ctx", {})
    if detail["type"] in _PYDANTIC_S and not {"error", "tag"} & context.keys():
        return text
    error = context.get("error")
    is_constant = isinstance(error, Exception) and str(error) in _constants_at(error.__traceback__)
    if is_constant or not _words(text) & read_words():
        return text
    return f"is refused ({detail['type']}); the reason is left out, because it repeats a value"


def _constants_at(traceback: TracebackType | None) -> list[Any]:
    """Return the constants of the function in which an error was raised, and of its module. They have no value."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return []
    frame = traceback.tb_frame
    return [*frame.f_code.co_consts, *(frame.f_globals.get(name) for name in frame.f_code.co_names)]


def _words(value: object) -> set[str]:
    return {word.casefold() for leaf in leaves(value) for word in _WORDS.findall(str(leaf))}
