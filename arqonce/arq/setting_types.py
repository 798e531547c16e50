"""Says which settings of an arq service have a type with which jobs would fail, or nothing would run.

arq looks at none: it exits at the first job, and the job stays in the queue. Our worker lives on, and would end them.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta, tzinfo
from itertools import chain
from typing import Any, NamedTuple

from arq.cron import CronJob
from arq.worker import Function

Test = Callable[[Any], bool]


class _Type(NamedTuple):
    """What a setting must be."""

    name: str
    holds: Test


def _is(*types: type) -> Test:
    return lambda value: isinstance(value, types)


_COUNT = _Type("a whole number", _is(int))
_SLOTS = _Type("a whole number, 1 or more", lambda value: isinstance(value, int) and value > 0)
_TIME = _Type("a number of seconds or a timedelta", _is(int, float, timedelta))
_HOOK = _Type("a function", callable)

_LIST = _Type("a list", lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes))

_HOOKS = ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")

_REQUIRED: Mapping[str, _Type] = {
    "max_jobs": _SLOTS,
    "max_tries": _COUNT,
    "max_burst_jobs": _COUNT,
    "poll_delay": _TIME,
    "keep_result": _TIME,
    "health_check_interval": _TIME,
}

_OPTIONAL: Mapping[str, _Type] = {
    "job_timeout": _TIME,  # the worker says itself why it needs one
    "job_completion_wait": _TIME,
    "timezone": _Type("a tzinfo, such as zoneinfo.ZoneInfo(name)", _is(tzinfo)),
    "redis_settings": _Type("arq's RedisSettings", lambda value: hasattr(value, "sentinel_master")),
    "functions": _LIST,
    "cron_jobs": _LIST,
    **dict.fromkeys(_HOOKS, _HOOK),
}

_OF_FUNCTIONS = {"timeout_s": _TIME, "keep_result_s": _TIME, "max_tries": _COUNT}


def require_types(settings: Mapping[str, Any]) -> None:
    """Do nothing if all have types that work.

    Raises:
        TypeError: one has not. No value is in its text: it may be a URL with a password.
    """
    for what, value, needed in _all(settings):
        if not needed.holds(value):
            found = value if isinstance(value, int) else type(value).__name__
            raise TypeError(f"{what} is {found}, and must be {needed.name}")


def _all(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any, _Type]]:
    for name, value in settings.items():
        if name == "keep_result" and settings.get("keep_result_forever"):
            continue
        needed = _REQUIRED.get(name) or (None if value is None else _OPTIONAL.get(name))
        if needed is not None:
            yield name, value, needed
    listed = [settings.get(name) for name in ("functions", "cron_jobs")]
    for one in chain.from_iterable(some for some in listed if isinstance(some, Collection)):
        for attribute, needed in _OF_FUNCTIONS.items() if isinstance(one, Function | CronJob) else ():
            if (value := getattr(one, attribute)) is not None:
                yield f"{attribute.removesuffix('_s')} of {one.name}", value, needed
