"""What is known of a job beside how it ends: the outcome of its work, and the tag of its request."""

import time
from dataclasses import dataclass, field
from typing import Any

from arqonce.execution.containment import CONTAINED
from arqonce.payloads import AnyPayload
from arqonce.wire.request import payload_tag, request_hash


@dataclass
class Progress:
    """What one run of a job knows of it, from one attempt to the next."""

    outcome: tuple[Any, ...] = ()
    """What the work of a job with phases has returned, as a tuple of one, for the attempts of its store; else empty."""

    started: float = field(default_factory=time.monotonic)
    """When the present attempt began, by ``time.monotonic()``."""

    tag: str | None = None
    """The tag of the request that its end answers (``wire.request_tag``); ``None`` if that cannot be read."""

    @property
    def has_worked(self) -> bool:
        """Whether the work has returned an outcome."""
        return bool(self.outcome)


def identified(payload: AnyPayload | None) -> AnyPayload | None:
    """Return the payload if its request hash can be computed, which the payload's own serializers may prevent."""
    try:
        with CONTAINED:
            return payload if payload is None or request_hash(payload) else None
    except Exception:  # noqa: BLE001 - application code may raise anything
        return None


def tag_of(payload: AnyPayload | None) -> str | None:
    """Return the tag of the payload's request; ``None`` if it has none that can be computed."""
    payload = identified(payload)
    return None if payload is None else payload_tag(payload)
