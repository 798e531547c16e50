"""What a proxy does that knows no RESP3: it lets answers through, and not what the server sends unasked."""

import re

_INVALIDATION = re.compile(
    rb">2\r\n\$10\r\ninvalidate\r\n(?:_\r\n|\*\d+\r\n(?:\$\d+\r\n[^\r]*\r\n)+?)(?=[>$:*+\-_,#%]|\Z)"
)


def without_pushes(replies: bytes) -> bytes:
    """Return the replies without the messages of client-side tracking."""
    return _INVALIDATION.sub(b"", replies)
