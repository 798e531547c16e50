"""The signed cookie of who has logged in. It holds no secret; the server remembers only those that were logged out."""

import hmac
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from pydantic import SecretStr

from arqonce.console.access import Person, TokenRights, Tokens, mark_of

_MOST_ENDED = 1000
"""Cookies of one person that are remembered as logged out. Nobody makes the console forget those of others."""

_LONGEST = 1000
"""Most characters of a cookie that are looked at."""


class Cookies:
    """Makes cookies, and reads them again. A cookie ends with its time, a log-out, its token, and the key."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        key: SecretStr | None,
        lasts: timedelta,
        https: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Sign with this key, or with a random one."""
        self.tokens = tokens
        self._key = (secrets.token_hex() if key is None else key.get_secret_value()).encode()
        self._now = now
        self._ended: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self.lasts = lasts
        self.https = https
        self.name = "__Host-console" if https else "console"
        """With the prefix, browsers take it by HTTPS alone, and from this very host."""

    def make(self, person: Person) -> str:
        """Return the cookie's value for a person who has shown a token."""
        assert isinstance(person.rights, TokenRights)  # noqa: S101 - only those log in here
        until = int(self._now() + self.lasts.total_seconds())
        said = [person.name, until, mark_of(person.rights), secrets.token_hex(8)]  # no two log-ins have the same
        text = json.dumps(said).encode().hex()  # base64 has characters that must be quoted in a cookie
        return f"{text}.{self._sign(text)}"

    def read(self, value: str | None) -> Person | None:
        """Return the person if the cookie is ours, is not over, and the token is still known."""
        text, _, signature = (value or "")[:_LONGEST].partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(text).encode()):
            return None
        name, until, mark = json.loads(bytes.fromhex(text))[:3]
        if signature in self._ended.get(name, ()):
            return None
        return self.tokens.person_named(name, mark) if self._now() < until else None

    def end(self, value: str | None) -> None:
        """Read it no more, wherever it was copied to, as long as this process lives."""
        person = self.read(value)
        if person is None:
            return
        ended = self._ended[person.name]
        ended[(value or "").partition(".")[2]] = None
        while len(ended) > _MOST_ENDED:
            del ended[next(iter(ended))]

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "replace"), sha256).hexdigest()
