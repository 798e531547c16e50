"""Who gets in, and what each may do: every rule as a table, through HTTP."""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.console import server
from arqonce.console.access import Rights, Role
from arqonce.console.application import ROUTES
from arqonce.console.routes import Route
from arqonce.console.settings import ConsoleSettings, Settings
from tests.arqonce.console.conftest import JANE, TOKENS, Browser, browsing, serving
from tests.conftest import wait_until_async


async def _answers(browser: Browser, routes: Iterable[Route]) -> dict[str, int]:
    """Ask each route as a browser does, and return the statuses."""
    return {
        f"{route.method} {route.path}": (
            await browser.ask(route.method, route.path.replace("{number}", "1"), headers=browser.origin, follow=False)
        ).status
        for route in routes
    }


async def test_nothing_is_shown_to_nobody(nobody: Browser) -> None:
    """Every route but the log-in and the static files needs somebody."""
    answers = await _answers(nobody, ROUTES)

    assert answers == {f"{route.method} {route.path}": 303 if route.method == "GET" else 401 for route in ROUTES}


async def test_a_reader_does_nothing(rob: Browser) -> None:
    """No route that needs an operator, or the right to people's data, answers a reader."""
    closed = [route for route in ROUTES if route.role is Role.OPERATOR or route.people]

    answers = await _answers(rob, closed)

    assert set(answers.values()) == {403}
    assert len(answers) > 10


def test_no_act_is_done_by_an_address() -> None:
    """Whatever needs an operator and is a GET is a preview of a form at the same path."""
    acts = {route.path for route in ROUTES if route.method == "POST"}

    previews = {route.path for route in ROUTES if route.method == "GET" and route.role is Role.OPERATOR}

    assert previews <= acts


async def test_methods_are_those_of_http(jane: Browser) -> None:
    """HEAD is GET without a body, as programs ask that watch a page; another method is told which there are."""
    pages = [route.path for route in ROUTES if route.method == "GET" and "{" not in route.path]
    paths = [path for path in pages if path != "/live"]
    for path in [*paths, "/log-in", "/static/console.css"]:
        head, page = await jane.ask("HEAD", path, follow=False), await jane.get(path, follow=False)
        assert (head.status, set(head.headers), head.body) == (page.status, set(page.headers), ""), path

    answer = await jane.ask("DELETE", "/log-in", headers=jane.origin)

    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "{url}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "{url}"}, 200),  # an old browser
        ({"Origin": "{url}", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "{url}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "{url}", "Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": "{url}.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
async def test_only_forms_of_the_page_are_taken(jane: Browser, headers: Mapping[str, str], status: int) -> None:
    """Another site cannot send a form, with or without the cookie."""
    sent = {name: value.format(url=jane.url) for name, value in headers.items()}

    answer = await jane.ask("POST", "/log-out", headers=sent)

    assert answer.status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://jobs.example.org", 401),  # of nobody who is logged in
        ("http://jobs.example.org", 403),
        ("http://localhost:9180", 401),  # through a tunnel
        ("http://localhost.example.org", 403),
    ],
)
async def test_a_form_that_was_not_sent_by_https_is_another_s(
    console_settings: Settings, origin: str, status: int
) -> None:
    """Whoever can write into a page that is loaded without TLS sends no form of this one."""
    own = ConsoleSettings(port=0, tokens=TOKENS, hosts="jobs.example.org", https=True)
    async with serving(replace(console_settings, console=own)) as url, browsing(url) as browser:
        host = origin.partition("://")[2]
        answer = await browser.ask("POST", "/log-in", data={"token": "x"}, headers={"Origin": origin, "Host": host})

    assert answer.status == (status if host != "localhost.example.org" else 421)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9180", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:9180", 200),
        ("jobs.example.org", 200),
        ("Jobs.Example.org", 200),
        ("jobs.example.org:8443", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost:9180.evil.example", 421),
        ("", 421),
    ],
)
async def test_only_its_own_names_are_answered(console_settings: Settings, host: str, status: int) -> None:
    """A name of another site that means this host reads nothing."""
    own = ConsoleSettings(port=0, tokens=TOKENS, hosts="jobs.example.org")
    async with serving(replace(console_settings, console=own)) as url, browsing(url) as browser:
        answer = await browser.get("/log-in", headers={"Host": host})

    assert answer.status == status


@pytest.mark.parametrize(
    ("proxies", "sent", "status"),
    [
        ("127.0.0.1", {"X-User": "jane@example.org"}, 200),
        ("127.0.0.0/8", {"x-user": "jane@example.org"}, 200),
        ("10.0.0.1", {"X-User": "jane@example.org"}, 303),  # not the proxy
        ("2001:db8::/32", {"X-User": "jane@example.org"}, 303),
        ("127.0.0.1", {"X-User": "joe@example.org"}, 403),  # has no rights
        ("127.0.0.1", {"X-User": ""}, 403),
        ("127.0.0.1", {}, 303),
        ("127.0.0.1", {"X-Forwarded-User": "jane@example.org"}, 303),  # another header
    ],
)
async def test_a_proxy_names_the_user(
    console_settings: Settings, proxies: str, sent: Mapping[str, str], status: int
) -> None:
    """Only the named header of a trusted peer, and only users who have rights."""
    users = {"jane@example.org": Rights(role=Role.OPERATOR)}
    own = ConsoleSettings(port=0, proxies=proxies, user_header="X-User", users=users)
    async with serving(replace(console_settings, console=own)) as url, browsing(url) as browser:
        answer = await browser.get("/queues", headers=sent, follow=False)

    assert answer.status == status


@pytest.mark.parametrize(("proxies", "status"), [("unix", 200), ("127.0.0.1", 303)])
async def test_a_proxy_behind_a_unix_socket(
    console_settings: Settings, tmp_path: Path, proxies: str, status: int
) -> None:
    """Whoever may connect to the socket is the proxy, if the settings say so; its names are those of CONSOLE_HOSTS."""
    where = str(tmp_path / "console.sock")
    rights = {"jane": Rights(role=Role.OPERATOR)}
    own = ConsoleSettings(socket=where, hosts="jobs.example.org", proxies=proxies, user_header="X-User", users=rights)
    async with (
        serving(replace(console_settings, console=own)),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(where)) as http,
        http.get("http://jobs.example.org/queues", headers={"X-User": "jane"}, allow_redirects=False) as response,
        http.get("http://localhost/log-in") as other,
    ):
        assert (response.status, other.status) == (status, 421)


@pytest.mark.parametrize(("mode", "lets_in"), [(0o750, True), (0o755, False)])
async def test_who_may_enter_the_folder_of_the_socket_may_connect(
    console_settings: Settings, tmp_path: Path, mode: int, *, lets_in: bool
) -> None:
    """A proxy runs as another user. In a folder that is open to all, the user of the console alone may."""
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    own = ConsoleSettings(socket=str(folder / "console.sock"), hosts="jobs.example.org", tokens=TOKENS)
    async with serving(replace(console_settings, console=own)) as where:
        assert _may_connect(Path(where)) is lets_in


def _may_connect(path: Path) -> bool:
    """Return whether other users may, which needs the right to write."""
    return bool(path.stat().st_mode & 0o002)


async def test_a_socket_on_which_another_program_listens_is_left_to_it(tmp_path: Path) -> None:
    """A second console would take its place, and the first one would be out of reach. What one has left is taken."""
    where = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(where))
        other.listen()

        with pytest.raises(OSError, match="another program listens on it"):
            await server._require_unused(str(where))

    await server._require_unused(str(where))
    where.unlink()
    await server._require_unused(str(where))


async def test_nobody_on_a_unix_socket_is_an_address(
    console_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may bind its own end to any name, such as the address of a proxy that is trusted."""
    monkeypatch.chdir(tmp_path)
    rights = {"jane": Rights(role=Role.OPERATOR)}
    own = ConsoleSettings(
        socket=str(tmp_path / "console.sock"), hosts="jobs.example.org", proxies="10.0.0.5", user_header="X-User",
        users=rights,
    )  # fmt: skip
    async with serving(replace(console_settings, console=own)), asyncio.timeout(10):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(0)
            client.bind("10.0.0.5")
            client.connect("console.sock")
            reader, writer = await asyncio.open_unix_connection(sock=client)
            writer.write(b"GET /queues HTTP/1.1\r\nHost: jobs.example.org\r\nX-User: jane\r\n\r\n")
            line = await reader.readline()
            writer.close()

    assert line.split()[1] == b"303"


async def test_two_users_of_a_proxy_are_none(console_settings: Settings) -> None:
    """A browser that sends the header itself, through a proxy that adds its own, is refused."""
    own = ConsoleSettings(port=0, proxies="127.0.0.1", user_header="X-User", users={"jane": Rights()})
    twice = [("X-User", "jane"), ("X-User", "jane")]
    async with (
        serving(replace(console_settings, console=own)) as url,
        browsing(url) as browser,
        browser.http.get(url, headers=twice) as response,
    ):
        assert response.status == 400


async def test_every_answer_forbids_what_it_can(jane: Browser) -> None:
    """Pages, errors, redirects and static files: no script but ours, no frame, no guess of the type, nothing kept."""
    paths = ("/", "/none", "/queues/pause", "/log-in", "/static/console.css", "/static/none.css", "/done/none")

    answers = [await jane.get(path, follow=False) for path in paths]

    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] in {"no-store", "no-cache"}
        assert "Server" not in answer.headers


async def test_a_link_from_elsewhere_finds_the_log_in(jane: Browser, nobody: Browser) -> None:
    """Browsers keep a strict cookie back on the way from another site: the page asks once more, from itself."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}

    first = await nobody.get("/queues", headers=headers, follow=False)

    assert (first.status, first.page.of("meta")[-1]["http-equiv"], "jane" in first.body) == (200, "refresh", False)
    assert (await jane.get("/queues", headers={"Sec-Fetch-Site": "same-origin"})).status == 200


async def test_no_error_shows_a_traceback(jane: Browser, redis: Redis) -> None:
    """A page that fails says so, and the log has the rest."""
    await redis.set("arqonce:workers", "not a sorted set")

    answer = await jane.get("/queues/pause?queue=none")

    assert "Traceback" not in answer.body
    assert answer.status in {200, 503}


async def test_a_cookie_without_secrets(url: str) -> None:
    """The cookie is for this page alone, scripts cannot read it, and it says neither token nor hash."""
    async with browsing(url, JANE) as browser:
        (cookie,) = browser.http.cookie_jar

    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["max-age"]) == (True, "Strict", "/", "28800")
    said = bytes.fromhex(cookie.value.partition(".")[0]).decode()
    assert JANE not in said
    assert TOKENS["jane"].sha256 not in said


@pytest.mark.parametrize(("dest", "status"), [("document", 200), ("image", 403), ("script", 403), ("empty", 403)])
async def test_no_page_is_a_part_of_another(console_settings: Settings, dest: str, status: int) -> None:
    """Another site cannot make the browser ask for pages by whose size or time it learns something.

    A proxy may log in whoever has its cookie, which browsers then send along.
    """
    own = ConsoleSettings(port=0, proxies="127.0.0.1", user_header="X-User", users={"jane": Rights()})
    headers = {"X-User": "jane", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": dest}
    async with serving(replace(console_settings, console=own)) as url, browsing(url) as browser:
        assert (await browser.get("/queues", headers=headers)).status == status


async def test_a_static_file_is_kept_under_its_own_address_alone(nobody: Browser) -> None:
    """A browser that asks an older console during a deploy must not keep its file under the new address."""
    (own,) = [str(one["src"]) for one in (await nobody.get("/log-in")).page.of("script")]

    kept = [(await nobody.get(path)).headers["Cache-Control"] for path in (own, f"{own}0", "/static/console.js?v=1")]

    assert kept == ["public, max-age=31536000, immutable", "no-cache", "no-cache"]


async def _is_as_long(found: Sequence[object], length: int) -> bool:
    return len(found) >= length


async def test_nobody_takes_all_connections(
    rob: Browser, jane: Browser, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """While many requests of one person wait for a slow server, another one is served in turn."""
    assert sessions is not None
    ended: list[str] = []

    async def ask(browser: Browser, name: str) -> None:
        assert (await browser.get("/audit?who=none")).status == 200
        ended.append(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(ask(rob, "rob"))
        await wait_until_async(partial(_is_as_long, ended, 10), 10)
        await ask(jane, "jane")

    assert ended.index("jane") < 60
