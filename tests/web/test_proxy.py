"""The service behind nginx and behind Caddy, configured as on the page docs/http.md."""

import os
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import aiohttp

from tests.conftest import wait_until
from tests.docs.blocks import blocks_in
from tests.programs import require
from tests.security.certificates import Authority
from tests.web.conftest import WebProcess

NAME = "users.example.org"


def _block(language: str, *replaced: tuple[str, str]) -> str:
    (block,) = [block.code for block in blocks_in("docs/http.md") if block.language == language]
    for old, new in replaced:
        assert old in block
        block = block.replace(old, new)
    return block


def _for_nginx(directory: Path, authority: Authority, port: int, service: int) -> str:
    """Return the page's configuration with files and ports of this test, and around it what nginx needs."""
    pair = authority.issue(NAME)
    block = _block(
        "nginx",
        ("127.0.0.1:8080", f"127.0.0.1:{service}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        (f"/etc/ssl/{NAME}.pem", str(pair.certificate)),
        (f"/etc/ssl/{NAME}.key", str(pair.key)),
        ("/var/log/nginx/users.log", str(directory / "users.log")),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return f"daemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\n{folders}{block}}}\n"


def _for_caddy(authority: Authority, port: int, service: int) -> str:
    """Return the page's configuration with a certificate and ports of this test; nothing else listens."""
    pair = authority.issue(NAME)
    return _block(
        "caddyfile",
        ("127.0.0.1:8080", f"127.0.0.1:{service}"),
        ("\tservers {", "\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2"),
        (f"{NAME} {{", f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {pair.certificate} {pair.key}"),
    )


_COMMANDS = {
    "nginx": lambda file: ["nginx", "-c", str(file), "-p", str(file.parent), "-e", str(file.with_name("error.log"))],
    "caddy": lambda file: ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"],
}


@contextmanager
def _proxy(name: str, directory: Path, make: Callable[[int], str]) -> Iterator[int]:
    """Run the program on a free port, and yield that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    file, output = directory / "configuration", directory / "output"
    file.write_text(make(port))
    homes = {"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with output.open("wb") as out:
        process = subprocess.Popen(_COMMANDS[name](file), env=os.environ | homes, stdout=out, stderr=out)
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, 10)
        assert process.poll() is None, output.read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_service_answers_behind_nginx(
    service: WebProcess, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Over TLS, as alone; nginx itself refuses a body that is too large, and its log has no query."""
    require("nginx")
    authority = Authority(tmp_path, "authority")
    trust = ssl.create_default_context(cafile=str(authority.file))

    with _proxy("nginx", tmp_path, lambda port: _for_nginx(tmp_path, authority, port, service.port)) as port:
        statuses = await _statuses(http, port, trust)

    log = (tmp_path / "users.log").read_text()
    assert statuses == [404, 404, 202, 413, 422]
    assert re.findall(r"(GET|POST) (\S+) (\d+) ", log)[0] == ("GET", "/user", "404")
    assert "Quillfeather" not in log
    wait_until(lambda: service.log.count('"event": "request"') >= 4, 5)
    assert len([line for line in service.lines if line["event"] == "request"]) == 4


async def test_the_service_answers_behind_caddy(
    service: WebProcess, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Over TLS, as alone; Caddy itself refuses a body that is too large."""
    require("caddy")
    authority = Authority(tmp_path, "authority")
    trust = ssl.create_default_context(cafile=str(authority.file))

    with _proxy("caddy", tmp_path, lambda port: _for_caddy(authority, port, service.port)) as port:
        statuses = await _statuses(http, port, trust)

    assert statuses in ([404, 404, 202, 413, 422], [404, 404, 202, 502, 422])  # 502 by Caddy 2.6


async def _statuses(http: aiohttp.ClientSession, port: int, trust: ssl.SSLContext) -> list[int]:
    async def status(method: str, path: str, body: bytes | BytesIO | None = None) -> int:
        url = f"https://127.0.0.1:{port}{path}"
        headers = {"Content-Type": "application/json", "Host": f"{NAME}:{port}"}
        async with http.request(method, url, data=body, headers=headers, ssl=trust, server_hostname=NAME) as response:
            return response.status

    return [
        await status("GET", "/user?name=Quillfeather"),
        await status("GET", "/users/0"),
        await status("POST", "/users", b'{"name": "Jane"}'),
        await status("POST", "/users", BytesIO(bytes(1_100_000))),
        await status("GET", "/user?name=" + "x" * 8000),
    ]
