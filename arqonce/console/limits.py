"""The limits of a kind of jobs, in words."""

from collections.abc import Sequence

from arqonce.spec import Registry


def limits_of(registry: Registry, name: str | None) -> Sequence[str]:
    """Return them as the registry of the console has them."""
    return [str(limit) for limit in registry[name].limits] if name is not None and name in registry.names else ()
