"""Which permits a job needs, by its kind's limits and its payload."""

from collections.abc import Sequence
from typing import Any

from arqonce.execution.containment import CONTAINED
from arqonce.execution.delivery import AnySpec
from arqonce.wire.arguments import read_payload
from arqonce.work import Permit


def permits_of(spec: AnySpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Sequence[Permit]:
    """Return what a job with these arguments needs; nothing if they are invalid, which its attempt says."""
    try:
        with CONTAINED:
            payload = read_payload(spec.payload, args, kwargs)
            return [limit.permit(payload) for limit in spec.limits]
    except Exception:  # noqa: BLE001 - a validator may raise anything
        return ()
