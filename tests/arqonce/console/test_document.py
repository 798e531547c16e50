"""docs/console.md: its settings are taken, its rights suffice, and nginx with its configuration names the user."""

import json
import os
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from getpass import getuser
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.console.access import Role
from arqonce.console.links import own_link
from arqonce.console.pages import NAVIGATION
from arqonce.console.settings import ConsoleSettings, Settings
from tests.arqonce.console.conftest import JANE, browsing, serving
from tests.conftest import wait_until
from tests.docs.blocks import blocks_in, text_of
from tests.leaks import PASSWORD
from tests.programs import require
from tests.rights import Rights, database_url, run_psql

PAGE = "docs/console.md"


def _blocks(language: str) -> list[str]:
    return [block.code for block in blocks_in(PAGE) if block.language == language]


def test_the_kinds_of_its_blocks_are_known() -> None:
    """Each is run or read by a test of this file; the command is that of test_settings."""
    languages = [block.language for block in blocks_in(PAGE)]

    assert sorted(languages) == ["console", "ini", "json", "json", "nginx", "sql"]
    assert _blocks("console") == ["users-worker console token jane --role operator\n"]


def test_every_page_is_described() -> None:
    """A page that is added gets a line."""
    described = text_of(PAGE)

    assert [entry.title for entry in NAVIGATION if f"| {entry.title} |" not in described] == []


def test_its_entries_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens and links, and the settings for a proxy."""
    entry, links = _blocks("json")
    for line in _blocks("ini")[0].splitlines():
        monkeypatch.setenv(*line.split("=", 1))

    behind = ConsoleSettings.load()
    monkeypatch.setenv("CONSOLE_TOKENS", entry)
    monkeypatch.setenv("CONSOLE_LINKS", links)
    found = ConsoleSettings.load()

    assert behind.users is not None
    assert {name: rights.role for name, rights in behind.users.items()} == {"jane": Role.OPERATOR, "joe": Role.READER}
    assert found.tokens is not None
    assert found.tokens["jane"].role is Role.OPERATOR
    assert own_link(found.links, "charge", "a/b&c") == "https://admin.example.org/charges?job=a%2Fb%26c"
    assert own_link(found.links, "mail", "a") is None


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_its_role_suffices(
    console_settings: Settings, rights: Rights, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Every page is shown, and nothing is missing on the overview."""
    assert (await redis.ping(), sessions is not None) == (True, True)
    admin = console_settings.database.url.get_secret_value()
    (sql,) = _blocks("sql")
    run_psql(admin, "--command", f"{sql}; ALTER ROLE app_console PASSWORD '{PASSWORD}'")
    try:
        url = database_url(admin, "console", make_url(admin).database)
        database = console_settings.database.model_copy(update={"url": SecretStr(url)})
        queue = console_settings.queue.model_copy(update={"url": SecretStr(rights.operator_redis)})
        async with (
            serving(replace(console_settings, database=database, queue=queue)) as served,
            browsing(served, JANE) as jane,
        ):
            pages = {entry.path: await jane.get(entry.path) for entry in NAVIGATION}
    finally:
        run_psql(admin, "--command", "DROP OWNED BY app_console; DROP ROLE app_console")

    assert {path: answer.status for path, answer in pages.items()} == dict.fromkeys(pages, 200)
    assert "not seen" not in pages["/"].page.text, pages["/"].page.text


@contextmanager
def _nginx(directory: Path, console: str) -> Iterator[int]:
    """Run nginx with the page's configuration, without TLS; yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    users = directory / "users"
    users.write_text("jane:{PLAIN}right\njoe:{PLAIN}right\n")
    (block,) = _blocks("nginx")
    lines = [line for line in block.splitlines() if "ssl_certificate" not in line]
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("http://127.0.0.1:9180", console),
        ("/etc/nginx/console.users", str(users)),
    ):
        assert old in block
        lines = [line.replace(old, new) for line in lines]
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    text = "\n".join(
        [
            f"user {getuser()};\ndaemon off;\npid {directory}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}",
            *lines,
            "}\n",
        ]
    )
    (directory / "nginx.conf").write_text(text)
    command = ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory), "-e", str(directory / "error.log")]
    process = subprocess.Popen(command, env=os.environ | {"HOME": str(directory)})
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, 10)
        assert process.poll() is None, (directory / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.usefixtures("starts_processes")
async def test_nginx_names_the_user(
    console_settings: Settings,
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the right password each is who it is, whatever the browser says; acts are theirs; changes are told."""
    require("nginx")
    assert (await redis.ping(), sessions is not None) == (True, True)
    for line in _blocks("ini")[0].splitlines():
        monkeypatch.setenv(*line.split("=", 1))
    own = ConsoleSettings.load(port=0)
    async with serving(replace(console_settings, console=own)) as console:
        with _nginx(tmp_path, console) as port:
            base, host = f"http://127.0.0.1:{port}", {"Host": "jobs.example.org"}
            origin = {"Origin": "https://jobs.example.org", "Sec-Fetch-Site": "same-origin"}
            form = {"queue": "arq:queue", "length": "1h", "reason": "x"}
            async with aiohttp.ClientSession(headers=host) as http:
                jane, joe, wrong = _basic("jane", "right"), _basic("joe", "right"), _basic("jane", "wrong")
                lie = {"X-Forwarded-User": "jane"}
                statuses = [
                    (await http.get(base, headers=wrong)).status,
                    (await http.get(base, headers=joe | lie)).status,
                    (await http.post(f"{base}/queues/pause", headers=origin | joe | lie, data=form)).status,
                    (await http.post(f"{base}/queues/pause", headers=origin | jane, data=form)).status,
                    (await http.get(base, headers=jane | {"Host": "evil.example"})).status,
                ]
                async with http.get(f"{base}/live", headers=joe) as live:
                    told = await live.content.readuntil(b"data: ")

    assert statuses == [401, 200, 403, 200, 421]
    assert told.endswith(b"event: changed\ndata: ")


def test_the_entry_of_the_page_is_json() -> None:
    """On one line, as in a file of settings."""
    assert all(isinstance(json.loads(text), dict) and "\n" not in text.strip() for text in _blocks("json"))
