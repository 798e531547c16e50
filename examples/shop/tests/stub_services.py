"""The bank and the mail service, as far as the shop uses them: for tests, and to try the shop out.

python tests/stub_services.py
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web


class StubServices:
    """Does a thing once for each key, and counts. ``busy`` is how many charges it refuses first."""

    def __init__(self, *, busy: int = 0) -> None:
        """Have done nothing."""
        self.busy = busy
        self.charges: dict[str, str] = {}
        self.mails: dict[str, str] = {}
        self.most_at_once: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def application(self) -> web.Application:
        """Return both services as one."""
        application = web.Application()
        application.add_routes([web.post("/charges", self._charge), web.post("/messages", self._mail)])
        return application

    async def _charge(self, request: web.Request) -> web.Response:
        if self.busy:
            self.busy -= 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        key, customer = request.headers["Idempotency-Key"], (await request.json())["customer"]
        self._now[customer] += 1
        self.most_at_once[customer] = max(self.most_at_once[customer], self._now[customer])
        await asyncio.sleep(0.2)  # a bank takes its time
        self._now[customer] -= 1
        self.charges.setdefault(key, customer)
        return web.json_response({"id": f"charge-{key}"})

    async def _mail(self, request: web.Request) -> web.Response:
        key, mail = request.headers["Idempotency-Key"], await request.json()
        self.mails.setdefault(key, f"{mail['to']}: {mail['text']}")
        return web.json_response({"id": f"mail-{key}"})


@asynccontextmanager
async def serve(services: StubServices) -> AsyncGenerator[str, None]:
    """Serve them in this loop; yield their URL."""
    runner = web.AppRunner(services.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    web.run_app(StubServices().application(), host="127.0.0.1", port=8070)
