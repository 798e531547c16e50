"""Callers authenticate with a bearer token from WEB_TOKENS (RFC 6750). All have the same rights and keys."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from web.problems import ProblemError

OPEN_PATHS = frozenset({"/openapi.json"})
"""Paths that need no token."""


def require_token(tokens: Sequence[str]) -> Middleware:
    """Return a middleware that requires one of the tokens; without any tokens it allows every request."""
    digests = [sha256(token.encode()).digest() for token in tokens]

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if digests and request.path not in OPEN_PATHS:
            _require_one_of(digests, request.headers.get("Authorization"))
        return await handler(request)

    return guard


def _require_one_of(digests: Sequence[bytes], header: str | None) -> None:
    if header is None:
        raise ProblemError(401, "a bearer token is needed", code="no_token", headers={"WWW-Authenticate": "Bearer"})
    scheme, _, token = header.partition(" ")
    given = sha256(token.strip().encode(errors="surrogateescape")).digest()
    fits = [hmac.compare_digest(given, digest) for digest in digests]  # compares all, in constant time
    if not any(fits) or scheme.lower() != "bearer":
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        raise ProblemError(401, "the bearer token is unknown", code="unknown_token", headers=headers)
