"""People who look at the console with Chromium, and what a page of theirs must never do."""

from collections.abc import Awaitable
from typing import Any, Protocol

from playwright.async_api import Browser, BrowserContext, Page, expect

LIMIT_MS = 20_000
"""How long a state is waited for, on a busy machine."""

WIDE: Any = {"width": 1200, "height": 800}

NARROW: Any = {"width": 380, "height": 760}

_COMMON = "Failed to load resource"
"""What Chromium says of every answer that is an error: tests look at the page instead."""


class OpenPage(Protocol):
    """Opens a page in a browser of its own: of who has the token, or of nobody. Options are those of a context."""

    def __call__(self, path: str = "/", *, token: str | None = ..., **options: Any) -> Awaitable[Page]:  # noqa: ANN401 - Playwright's
        """Open it."""
        ...


class People:
    """Opens pages for people who have logged in once, and notes what is wrong in any of them."""

    def __init__(self, chromium: Browser, url: str) -> None:
        self._chromium = chromium
        self._url = url
        self._states: dict[str, Any] = {}
        self._contexts: list[BrowserContext] = []
        self.faults: list[str] = []
        """Errors of scripts, refusals by the content security policy, and dialogs."""

    async def open(self, path: str = "/", *, token: str | None = None, **options: Any) -> Page:  # noqa: ANN401
        """Open a page in a context of its own."""
        if token is not None and token not in self._states:
            page = await self._new_page(None, {})
            await log_in(page, self._url, token)
            self._states[token] = await page.context.storage_state()
        page = await self._new_page(token, options)
        await page.goto(self._url + path)
        return page

    async def leave(self) -> None:
        """Close all pages."""
        while self._contexts:
            await self._contexts.pop().close()

    async def _new_page(self, token: str | None, options: dict[str, Any]) -> Page:
        context = await self._chromium.new_context(
            **{"viewport": WIDE, "timezone_id": "UTC", "locale": "en-GB", "reduced_motion": "reduce"} | options,
            storage_state=self._states[token] if token is not None else None,
        )
        context.set_default_timeout(LIMIT_MS)
        self._contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: self.faults.append(f"{page.url}: a dialog: {dialog.message}"))
        page.on("console", lambda said: self._note(page, said.type, said.text))
        return page

    def _note(self, page: Page, kind: str, text: str) -> None:
        if kind == "error" and not text.startswith(_COMMON):
            self.faults.append(f"{page.url}: {text}")


async def log_in(page: Page, url: str, token: str) -> None:
    """Log in with the form."""
    await page.goto(f"{url}/log-in")
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
