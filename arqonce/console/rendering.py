"""Renders pages from templates. Whatever comes from outside goes through ``shown``; everything else is escaped too."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from itertools import chain, zip_longest
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from arqonce.console.shown import LONGEST, plain, shown

NONE = "\N{EN DASH}"
"""Stands for a value that there is not."""

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))

_STATIC = files("arqonce.console") / "static"

STATIC_TYPES: Mapping[str, str] = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""All files that are served as they are."""


@lru_cache(maxsize=1)
def static_files() -> Mapping[str, bytes]:
    """Return the content of the static files by name."""
    return {name: (_STATIC / name).read_bytes() for name in STATIC_TYPES}


def static_url(name: str) -> str:
    """Return the path of a static file, which changes with its content: browsers may keep it."""
    return f"/static/{name}?v={sha256(static_files()[name]).hexdigest()[:12]}"


def link(path: str, **query: object) -> str:
    """Return a path with a query; parameters that are ``None`` are left out. Whatever they contain stays data."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def sentence(text: str) -> str:
    """Return a text as a sentence: with a capital and a full stop."""
    text = f"{text[:1].upper()}{text[1:].rstrip('. ')}"
    return text if text.endswith("?") else f"{text}."


def number(value: float | None) -> str:
    """Return a whole number with separators; a dash for none."""
    return NONE if value is None else f"{value:,.0f}"


def rate(value: float) -> str:
    """Return a number for each second, with as many digits as tell something."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"  # noqa: PLR2004


def duration(value: timedelta | float | None) -> str:
    """Return a length of time in its two largest units; a dash for none."""
    if value is None:
        return NONE
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 10:  # noqa: PLR2004 - tenths tell something
        return f"{seconds:.1f} s"
    whole, parts = int(seconds), list[str]()
    for unit, size in _UNITS:
        if whole >= size or parts:
            count, whole = divmod(whole, size)
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:  # noqa: PLR2004 - days and hours, without minutes
            break
    return " ".join(filter(None, parts))


def ago(since: float, now: datetime) -> timedelta:
    """Return how long it is since a time, in seconds since 1970; not less than none, if clocks differ."""
    return timedelta(seconds=max(0.0, now.timestamp() - since))


def megabytes(value: float | None) -> str:
    """Return a number of bytes in megabytes; a dash for none."""
    return NONE if value is None else f"{value / 1e6:,.0f} MB"


def moment(value: datetime | float | None) -> Markup:
    """Return a time as HTML: in UTC, which the script shows in the viewer's zone. A dash for none."""
    if value is None:
        return escape(NONE)
    at = (value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)).astimezone(UTC)
    text = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(timespec="milliseconds"), text, text)


_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC\b", re.ASCII)


def told(value: str, limit: int = LONGEST) -> Markup:
    """Return a text as ``shown`` does, whose times the script shows in the viewer's zone."""
    if len(value) > limit:
        return shown(value, limit)
    texts, times = _TIME.split(value)[::2], _TIME.findall(value)
    with suppress(ValueError):  # only looks like a time
        moments = [moment(datetime.fromisoformat(f"{one}+00:00")) for one in times]
        return Markup("").join(chain(*zip_longest((shown(one, limit) for one in texts), moments, fillvalue="")))
    return shown(value, limit)


@lru_cache(maxsize=1000)
def clock(value: datetime) -> Markup:
    """Return the time of day as HTML: in UTC, which the script shows in the viewer's zone."""
    at = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}" data-clock>{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S} UTC", f"{at:%H:%M}"
    )


@lru_cache(maxsize=1)
def templates() -> Environment:
    """Return the environment of the templates. An unknown variable is an error."""
    environment = Environment(
        loader=PackageLoader("arqonce.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "told": told,
        "plain": plain,
        "number": number,
        "rate": rate,
        "duration": duration,
        "megabytes": megabytes,
        "moment": moment,
        "clock": clock,
        "ago": ago,
        "sentence": sentence,
    }
    environment.globals |= {"link": link, "static_url": static_url}
    return environment


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template."""
    return templates().get_template(template).render(context)
