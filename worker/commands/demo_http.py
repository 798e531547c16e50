"""The HTTP part of the demo: the service in a separate process, a POST and a GET."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.client import HTTPConnection
from importlib.util import find_spec

import typer

from arqonce.commands.sandbox import Sandbox
from arqonce.process.startup_errors import StartupError

_START_LIMIT = timedelta(seconds=30)
"""Longest time until the service listens; it needs about one second."""

_KEY = "demo-joan"


def show_http(sandbox: Sandbox) -> None:
    """Store Joan with a POST and find her with a GET. On a second run, the POST's key makes it a duplicate.

    Raises:
        StartupError: the service ended, or did not listen in time.
    """
    if find_spec("aiohttp_sqlalchemy") is None:
        typer.echo("the HTTP service is not installed: pip install 'users-worker[web]'")
        return
    headers = {"Content-Type": "application/json", "Idempotency-Key": _KEY, "Prefer": "wait=20"}
    with _open_service(sandbox) as port:
        _ask(port, "POST", "/users", json.dumps({"name": "Joan"}), headers)
        _ask(port, "GET", "/user?name=Joan", None, {})


def _ask(port: int, method: str, path: str, body: str | None, headers: dict[str, str]) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        typer.echo(f"{method} {path} {body or ''}".rstrip() + f": {response.status} {response.read().decode()}")
    finally:
        connection.close()


@contextmanager
def _open_service(sandbox: Sandbox) -> Iterator[int]:
    port = _free_port()
    with (
        (sandbox.directory / "web.log").open("wb") as log,
        sandbox.open_process("web", settings={"WEB_PORT": str(port)}, instead_of="WEB_", log=log) as service,
    ):
        _wait_until_listening(service, port)
        yield port


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_listening(service: "subprocess.Popen[bytes]", port: int) -> None:
    limit = time.monotonic() + _START_LIMIT.total_seconds()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if service.poll() is not None:
                raise StartupError(f"the HTTP service ended with exit code {service.returncode}: see web.log") from None
            if time.monotonic() > limit:
                raise StartupError("the HTTP service did not listen in time: see web.log") from None
            time.sleep(0.02)
        else:
            return
