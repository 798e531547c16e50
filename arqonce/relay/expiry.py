"""Whether a promised job has expired before it could be written into Redis."""

from arqonce.failures import InvalidMessageError
from arqonce.wire.keys import now_ms
from arqonce.wire.message import read_message


def has_expired(data: bytes) -> bool:
    """Return whether the message can be read and says that its job has expired by now."""
    try:
        expires_ms = read_message(data).expires_ms
    except InvalidMessageError:
        return False
    return expires_ms is not None and now_ms() >= expires_ms
