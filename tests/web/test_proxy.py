"""The service behind nginx, configured as on the page docs/http.md."""

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


def _configuration(directory: Path, authority: Authority, port: int, service: int) -> str:
    """Return the page's configuration with files and ports of this test, and around it what nginx needs."""
    (block,) = [block.code for block in blocks_in("docs/http.md") if block.language == "nginx"]
    pair = authority.issue(NAME)
    for old, new in (
        ("127.0.0.1:8080", f"127.0.0.1:{service}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        (f"/etc/ssl/{NAME}.pem", str(pair.certificate)),
        (f"/etc/ssl/{NAME}.key", str(pair.key)),
        ("/var/log/nginx/users.log", str(directory / "users.log")),
    ):
        assert old in block
        block = block.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return f"daemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\n{folders}{block}}}\n"


@contextmanager
def _nginx(directory: Path, make: Callable[[int], str]) -> Iterator[int]:
    """Run nginx on a free port, and yield that."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    file = directory / "nginx.conf"
    file.write_text(make(port))
    command = ["nginx", "-c", str(file), "-p", str(directory), "-e", str(directory / "error.log")]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, 10)
        assert process.poll() is None, (directory / "error.log").read_text()
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

    with _nginx(tmp_path, lambda port: _configuration(tmp_path, authority, port, service.port)) as port:

        async def status(method: str, path: str, body: bytes | BytesIO | None = None) -> int:
            url, headers = f"https://127.0.0.1:{port}{path}", {"Content-Type": "application/json"}
            async with http.request(
                method, url, data=body, headers=headers, ssl=trust, server_hostname=NAME
            ) as response:
                return response.status

        statuses = [
            await status("GET", "/user?name=Quillfeather"),
            await status("GET", "/users/0"),
            await status("POST", "/users", b'{"name": "Jane"}'),
            await status("POST", "/users", BytesIO(bytes(1_100_000))),
            await status("GET", "/user?name=" + "x" * 8000),
        ]

    log = (tmp_path / "users.log").read_text()
    assert statuses == [404, 404, 202, 413, 422]
    assert re.findall(r"(GET|POST) (\S+) (\d+) ", log)[0] == ("GET", "/user", "404")
    assert "Quillfeather" not in log
    wait_until(lambda: service.log.count('"event": "request"') >= 4, 5)
    assert len([line for line in service.lines if line["event"] == "request"]) == 4
