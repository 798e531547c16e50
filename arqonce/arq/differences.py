"""Says what differs when an arq service runs in our worker, line by line, each with its cure. Opens nothing."""

import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from types import UnionType
from typing import Any, Literal, Union
from uuid import UUID

from arq.cron import CronJob
from arq.worker import Function, func

from arqonce.arq.candidates import Candidate, find_candidate
from arqonce.arq.service import PARAMETERS, Service

_OBSOLETE = {
    "queue_read_limit": "our claims take what there is room for: nothing to do",
    "handle_signals": "the process handles signals itself: nothing to do",
}
"""Settings that have no effect, with the reason why nothing is to be done."""

_JSON = (str, int, float, bool, type(None), list, dict)
"""Types that JSON carries as they are."""

_AS_TEXT = (datetime, date, time, timedelta, UUID, Decimal, Enum)
"""Types that arrive as text: JSON writes them, and a function gets a string."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs."""

    level: Literal["error", "warning", "note"]
    """``error``: jobs would fail. ``warning``: something acts differently. ``note``: worth knowing."""

    where: str
    what: str
    cure: str


def find_differences(service: Service, *, accepts_pickle: bool = False) -> list[Difference]:
    """Return all differences, errors first."""
    found = [
        *_settings(service),
        *_serializers(service, accepts_pickle=accepts_pickle),
        *_functions(service, accepts_pickle=accepts_pickle),
        *_cron(service),
    ]
    levels = ("error", "warning", "note")
    return sorted(found, key=lambda one: levels.index(one.level))


def _settings(service: Service) -> Iterator[Difference]:
    for name in sorted(service.others):
        if close := get_close_matches(name, PARAMETERS, n=1, cutoff=0.75):
            yield Difference("warning", name, "arq knows no such setting and ignores it", f"did you mean {close[0]}?")
    for name in sorted(service.inherited):
        what = "it is inherited: arq's own command ignores it, ours applies it"
        yield Difference("warning", name, what, "repeat it in the class, or remove it from the base class")
    for name in sorted(_OBSOLETE.keys() & service.settings.keys()):
        yield Difference("note", name, "it has no effect here", _OBSOLETE[name])
    if service.settings.get("redis_pool") is not None:
        what = "each process opens a pool of its own: our worker refuses this one"
        yield Difference("error", "redis_pool", what, "name the server in redis_settings")
    redis = service.settings.get("redis_settings")
    if redis is not None and redis.ssl and not redis.ssl_check_hostname and redis.ssl_cert_reqs != "none":
        what = "arq does not look for whom the server's certificate is: our worker refuses one for another host"
        yield Difference("warning", "redis_settings", what, "connect by a name that the certificate contains")
    if service.settings.get("job_timeout", 0) is None:
        what = "a job without a limit can hold its slot for ever: our worker refuses it"
        yield Difference("error", "job_timeout", what, "set a time, such as 3600")


def _serializers(service: Service, *, accepts_pickle: bool) -> Iterator[Difference]:
    if service.settings.get("job_deserializer") is None and not accepts_pickle:
        yield Difference(
            "error",
            "job_deserializer",
            "there is none: arq reads pickles then, our worker reads JSON, and puts pickles back into the queue",
            "give producers and this class job_serializer=arqonce.encode and job_deserializer=arqonce.decode; until "
            "all have them, run with --pickle",
        )


def _functions(service: Service, *, accepts_pickle: bool) -> Iterator[Difference]:
    known: dict[str, object] = {}
    is_json = service.settings.get("job_deserializer") is None and not accepts_pickle
    for function in map(func, service.settings.get("functions") or ()):
        name = function.name
        if known.get(name) is function.coroutine:
            yield Difference("note", name, "it is listed twice: the last counts", "list it once")
            continue
        if name in known:
            yield Difference("error", name, "two functions have this name: arq runs the last", "func(f, name=...)")
        known[name] = function.coroutine
        if is_json:
            yield from _parameters(name, function)
        if (candidate := find_candidate(function.coroutine)) is not None:
            yield _as_handler(name, candidate)


def _as_handler(name: str, candidate: Candidate) -> Difference:
    used = " and ".join(f'ctx["{key}"]' for key in candidate.keys)
    payload = "".join(word[:1].upper() + word[1:] for word in re.split(r"[\W_]+", name))
    handler = f"async def {re.split(r'[^0-9A-Za-z_]', name)[-1]}(session: AsyncSession, payload: {payload})"
    fields = f"the fields {', '.join(candidate.fields)}" if candidate.fields else "no fields"
    return Difference(
        "note",
        name,
        f"of ctx it uses only {used}: as a handler it would take effect exactly once instead of at least once",
        f'class {payload}(Payload) with job_name = "{name}" and {fields}; {handler}, without commit()',
    )


def _parameters(name: str, function: Function) -> Iterator[Difference]:
    coroutine = function.coroutine
    try:
        hints = typing.get_type_hints(coroutine)
    except Exception:  # noqa: BLE001 - annotations that only a type checker can read
        return
    parameters = list(inspect.signature(coroutine).parameters)[1:]
    for parameter, kind in ((one, kind) for one in parameters for kind in _classes(hints.get(one))):
        if _is_carried(kind):
            continue
        where = f"{name}({parameter}: {kind.__name__})"
        if issubclass(kind, _AS_TEXT):
            reads = ".fromisoformat" if hasattr(kind, "fromisoformat") else ""
            call = f"{kind.__name__}{reads}({parameter})"
            if kind is timedelta:
                call = f"pydantic.TypeAdapter(timedelta).validate_python({parameter})"
            cure = f"read it in the function, such as {call}, or make it a handler"
            yield Difference("warning", where, "JSON writes it as text, and the function gets a str", cure)
        elif issubclass(kind, tuple | set | frozenset):
            yield Difference(
                "warning", where, "JSON has lists only, and the function gets one", f"{kind.__name__}(...)"
            )
        elif kind in {bytes, bytearray}:
            yield Difference("error", where, "JSON has no bytes", "send text, or the key of a stored file")
        else:
            yield Difference(
                "error", where, "JSON carries no objects", "send its fields, or make it a handler's payload"
            )


def _classes(hint: object) -> Iterator[type]:
    """Return the classes that a hint names: of a union each, of a generic the one without its parameters."""
    kind = typing.get_origin(hint) or hint
    if kind in {Union, UnionType}:
        for one in typing.get_args(hint):
            yield from _classes(one)
    elif isinstance(kind, type):
        yield kind


def _is_carried(kind: type) -> bool:
    """Return whether a value that comes out of JSON can be such: also ``Sequence``, ``object`` or a ``TypedDict``."""
    if typing.is_typeddict(kind) or getattr(kind, "_is_protocol", False):
        return True
    return kind is Any or any(issubclass(one, kind) for one in _JSON)


def _cron(service: Service) -> Iterator[Difference]:
    for job in service.settings.get("cron_jobs") or ():
        if isinstance(job, CronJob) and not job.unique:
            what = "unique=False: each worker enqueues it"
            yield Difference("note", job.name, what, "leave unique out, unless each worker is to run it")
