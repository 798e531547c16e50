"""Remembers what acts have done, so that a page can say so after a redirect: to reload it repeats nothing."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

_LASTS = timedelta(minutes=30)

_MOST = 500


class Link(NamedTuple):
    """A link to a page of the console."""

    href: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an act has done."""

    title: str
    """Such as ``Paused create_user in arq:queue``."""

    sentences: Sequence[str] = ()
    is_complete: bool = True
    """Whether it was done as a whole; else the sentences say what was not."""

    links: Sequence[Link] = ()
    """Where to go on."""


class DoneActs:
    """The latest acts, each known to the one who did it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin with none."""
        self._now = now
        self._acts: OrderedDict[str, tuple[str, float, Done]] = OrderedDict()

    def add(self, who: str, done: Done) -> str:
        """Remember it, and return its number, which cannot be guessed."""
        number = secrets.token_urlsafe(12)
        self._acts[number] = who, self._now() + _LASTS.total_seconds(), done
        while len(self._acts) > _MOST:
            self._acts.popitem(last=False)
        return number

    def find(self, who: str, number: str) -> Done | None:
        """Return it, unless it is forgotten or somebody else's."""
        author, until, done = self._acts.get(number, ("", 0.0, None))
        return done if author == who and self._now() < until else None
