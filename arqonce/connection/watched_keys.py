"""Which keys somebody wants to hear of, of those that were read on a connection that tracks them (``direct``)."""

from collections.abc import Callable, Collection


class WatchedKeys:
    """Each key has one listener. It is told again only after the key was read again."""

    def __init__(self) -> None:
        """Begin with none."""
        self._on_change: dict[bytes, Callable[[], None]] = {}

    def watch(self, key: str, on_change: Callable[[], None]) -> None:
        """Call ``on_change`` when others change the key, or may have changed it unseen."""
        self._on_change[key.encode()] = on_change

    def hear(self, keys: Collection[bytes] | None) -> None:
        """Tell of these keys; ``None``: of all, because everything has changed, or the connection was lost."""
        for key, changed in self._on_change.items():
            if keys is None or key in keys:
                changed()
