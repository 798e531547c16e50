"""The console that ``dev`` runs beside its worker: on a free port, with a token that is made for this run."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec

from arqonce.commands.sandbox import Sandbox
from arqonce.console.access import hash_of, new_token

_PORT = 9180
"""Where the console listens by default."""


class DevConsole:
    """A console that is starting, or runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, token: str) -> None:
        """Know the process."""
        self._process = process
        self._port = port
        self._said = False
        self.address = f"http://127.0.0.1:{port}/log-in#{token}"
        """Logs in whoever opens it. Browsers send what is behind the number sign to nobody."""

    def news(self) -> str | None:
        """Return what there is to say for the first time: that it can be looked at, or that it has ended."""
        if self._said:
            return None
        if self._process.poll() is not None:
            self._said = True
            return f"the console has ended with exit code {self._process.returncode}: see its log"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
            self._said = True
            return f"look at it, as an operator: {self.address}"
        return None


@contextmanager
def open_dev_console(sandbox: Sandbox) -> Iterator[DevConsole | None]:
    """Start a console, and stop it at the end. ``None`` if the extra is not installed."""
    if not all(map(find_spec, ("aiohttp", "jinja2"))):
        yield None
        return
    port, token = _free_port(), new_token()
    tokens = {"dev": {"sha256": hash_of(token), "role": "operator", "people": True}}
    settings = {"CONSOLE_PORT": str(port), "CONSOLE_TOKENS": json.dumps(tokens)}
    with sandbox.open_process(sandbox.module, "console", settings=settings, instead_of="CONSOLE_") as process:
        yield DevConsole(process, port, token)


def _free_port() -> int:
    """Return the usual port, or another one if that is in use."""
    for port in (_PORT, 0):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    return _PORT
