"""The console on the servers of the tests, and people who look at it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser

import aiohttp
import pytest
from multidict import CIMultiDictProxy
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from yarl import URL

from arqonce.console.access import Role, TokenRights, hash_of
from arqonce.console.server import build_runner, listen, open_console
from arqonce.console.settings import ConsoleSettings, Settings
from arqonce.database.settings import DatabaseSettings
from arqonce.settings.worker import QueueSettings, WorkerSettings
from tests.conftest import wait_until_async
from worker.application import APPLICATION

JANE, ROB, PAT = (f"{name}-0123456789abcdef0123456789abcdef" for name in ("jane", "rob", "pat"))
"""Tokens of an operator who may see people's data, of a reader, and of a reader who may see people's data."""

TOKENS = {
    "jane": TokenRights(sha256=hash_of(JANE), role=Role.OPERATOR, people=True),
    "rob": TokenRights(sha256=hash_of(ROB)),
    "pat": TokenRights(sha256=hash_of(PAT), people=True),
}


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note a text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """All texts, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def fields(self) -> dict[str, str]:
        """Return the values of the hidden fields."""
        hidden = [one for one in self.of("input") if one.get("type") == "hidden"]
        return {str(one["name"]): str(one.get("value") or "") for one in hidden}


@dataclass
class Answer:
    """What the console has answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: str

    @property
    def page(self) -> Page:
        """The page."""
        return Page(self.body)


@dataclass
class Browser:
    """A person's browser."""

    url: str
    http: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, follow: bool = True, **options: object) -> Answer:
        """Send a request."""
        headers = self.headers | dict(options.pop("headers", {}))  # type: ignore[call-overload]
        url = URL(self.url + path, encoded=True)
        async with self.http.request(method, url, headers=headers, allow_redirects=follow, **options) as response:  # type: ignore[arg-type]
            return Answer(response.status, response.headers, await response.text())

    async def get(self, path: str, **options: object) -> Answer:
        """Open a page."""
        return await self.ask("GET", path, **options)  # type: ignore[arg-type]

    async def until(self, path: str, words: str) -> Answer:
        """Open a page until it has these words."""
        found: list[Answer] = []

        async def has_words() -> bool:
            found.append(await self.get(path))
            return words in found[-1].page.text

        await wait_until_async(has_words, 10)
        return found[-1]

    async def send(self, path: str, **fields: str) -> Answer:
        """Send a form, as a browser does."""
        return await self.ask("POST", path, data=fields, headers=self.origin)

    @property
    def origin(self) -> dict[str, str]:
        """What browsers say of a form of the page."""
        return {"Origin": self.url, "Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def serving(settings: Settings, *, idle: timedelta = timedelta(seconds=30)) -> AsyncIterator[str]:
    """Serve a console on a free port; yield its URL."""
    async with open_console(settings, APPLICATION, every=timedelta(milliseconds=50)) as console:
        runner = build_runner(console, idle=idle, grace=timedelta(seconds=1))
        await runner.setup()
        try:
            yield (await listen(runner, settings)).rstrip("/")
        finally:
            await runner.cleanup()


@asynccontextmanager
async def browsing(url: str, token: str | None = None) -> AsyncIterator[Browser]:
    """Open a browser, and log in."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        browser = Browser(url, http)
        if token is not None:
            assert (await browser.send("/log-in", token=token)).status == 200
        yield browser


@pytest.fixture
def console_settings(database: DatabaseSettings, queue: QueueSettings) -> Settings:
    """Return settings of a console that lets three people in."""
    return Settings(database, queue, WorkerSettings(), ConsoleSettings(port=0, tokens=TOKENS))


@pytest.fixture
async def url(
    console_settings: Settings, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> AsyncIterator[str]:
    """Serve a console on empty servers."""
    assert await redis.ping()
    assert sessions is not None
    async with serving(console_settings) as served:
        yield served


@pytest.fixture
async def jane(url: str) -> AsyncIterator[Browser]:
    """Yield the browser of an operator."""
    async with browsing(url, JANE) as browser:
        yield browser


@pytest.fixture
async def rob(url: str) -> AsyncIterator[Browser]:
    """Yield the browser of a reader."""
    async with browsing(url, ROB) as browser:
        yield browser


@pytest.fixture
async def nobody(url: str) -> AsyncIterator[Browser]:
    """Yield a browser in which nobody has logged in."""
    async with browsing(url) as browser:
        yield browser
