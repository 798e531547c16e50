"""A server that can be killed and restarted on its port. Knows neither PostgreSQL nor Valkey."""

import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from arqonce.embedded.program import Server

ServerT = TypeVar("ServerT", bound=Server)


class Restartable(Generic[ServerT]):
    """A server that can be killed and restarted on its port. All methods block, and wait for each other."""

    def __init__(self, start: Callable[[], AbstractContextManager[ServerT]]) -> None:
        self._start, self._stack, self._lock = start, ExitStack(), threading.Lock()
        self.server = self._stack.enter_context(start())
        self.returned_at = time.monotonic()
        """Time of its last start, in monotonic seconds."""

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return urlsplit(self.server.url).port or 0

    def crash(self, *, down: float, wipe: Path | None = None) -> None:
        """Kill the server as in a crash, remove the folder ``wipe``, and restart it ``down`` seconds later."""
        with self._lock:
            self.server.kill()
            self._keep_log()
            if wipe is not None:
                shutil.rmtree(wipe)
            time.sleep(down)
            self._start_again()

    def restart(self, meanwhile: Callable[[], None]) -> None:
        """Shut the server down, call ``meanwhile``, and start it again."""
        with self._lock:
            self.server.stop()
            self._keep_log()
            meanwhile()
            self._start_again()

    def _start_again(self) -> None:
        self._stack.close()
        self.server = self._stack.enter_context(self._start())
        self.returned_at = time.monotonic()

    def _keep_log(self) -> None:
        """Rename the log, because the next start truncates it."""
        log = self.server.log_path
        log.rename(log.with_name(f"{log.name}.{len(list(log.parent.glob(log.name + '*')))}"))

    def close(self) -> None:
        """Shut the server down."""
        with self._lock:
            self._stack.close()


def free_port() -> int:
    """Return a loopback port on which nothing listens at present."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
